import numpy as np
import pytest

from lemica_planner import ErrorGraph, InvalidGraphError, Provenance, Sample


def weights(num_steps=5):
    array = np.full((num_steps, num_steps), np.inf)
    array[np.arange(num_steps - 1), np.arange(1, num_steps)] = 0
    array[0, 2] = 0.25
    return array


def broken(start, end, value):
    array = weights()
    array[start, end] = value
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), "square"),
        (np.zeros(4), "square"),
        (np.zeros((1, 1)), "at least 2 steps"),
        (np.zeros((2, 2), complex), "real numbers"),
        (np.array([["0", "0"], ["0", "0"]]), "real numbers"),
        (np.zeros((2, 2), bool), "real numbers"),
        (broken(1, 3, np.nan), r"weights\[1, 3\] must be a number >= 0.*got nan"),
        (broken(1, 3, -0.5), r"weights\[1, 3\] must be a number >= 0.*got -0.5"),
        (broken(1, 3, -np.inf), r"weights\[1, 3\]"),
        (broken(2, 3, 0.1), r"weights\[2, 3\] must be 0"),
        (broken(2, 3, np.inf), r"weights\[2, 3\] must be 0"),
    ],
)
def test_invalid_weights_are_refused(array, message):
    with pytest.raises(InvalidGraphError, match=message):
        ErrorGraph(array)


def test_the_lower_triangle_is_ignored():
    array = weights()
    array[np.tril_indices(5)] = np.nan
    assert ErrorGraph(array).max_span == 2


def test_it_keeps_a_read_only_copy():
    array = weights()
    graph = ErrorGraph(array)
    array[0, 2] = 9
    assert graph.weights[0, 2] == 0.25
    with pytest.raises(ValueError, match="read-only"):
        graph.weights[0, 2] = 9


def test_integers_and_float32_are_taken():
    assert ErrorGraph(np.zeros((3, 3), int)).weights.dtype == np.float64
    assert ErrorGraph(np.zeros((3, 3), np.float32)).num_steps == 3


def test_max_span():
    assert ErrorGraph(weights()).max_span == 2
    assert ErrorGraph(np.zeros((5, 5))).max_span == 4
    assert ErrorGraph(broken(0, 2, np.inf)).max_span == 1


def full_graph():
    errors = np.stack([weights(), weights()]).astype(np.float32)
    provenance = Provenance(num_inference_steps=5, model="toy", scheduler_config={"shift": 3.0})
    return ErrorGraph(weights(), errors, provenance, [Sample("a cube", 1), Sample("ein Würfel", 2)])


@pytest.mark.parametrize("graph", [ErrorGraph(weights()), full_graph()])
def test_save_and_load_round_trip(graph, tmp_path):
    graph.save(tmp_path / "graph.bin")
    loaded = ErrorGraph.load(tmp_path / "graph.bin")
    np.testing.assert_array_equal(loaded.weights, graph.weights)
    assert (loaded.provenance, loaded.samples) == (graph.provenance, graph.samples)
    assert (loaded.sample_errors is None) == (graph.sample_errors is None)
    if graph.sample_errors is not None:
        np.testing.assert_array_equal(loaded.sample_errors, graph.sample_errors)
        assert loaded.sample_errors.dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["graph.bin"]


def test_the_same_graph_gives_the_same_bytes(tmp_path):
    full_graph().save(tmp_path / "a")
    full_graph().save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "graph.npz"
    for content in (b"", b"{}", b"PK\x03\x04 torn", b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(InvalidGraphError, match=r"graph\.npz"):
            ErrorGraph.load(path)


def test_a_plain_array_is_refused(tmp_path):
    np.save(tmp_path / "graph.npy", weights())
    with pytest.raises(InvalidGraphError):
        ErrorGraph.load(tmp_path / "graph.npy")


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "graph.npz", weights=np.array([object()], dtype=object))
    with pytest.raises(InvalidGraphError, match="allow_pickle"):
        ErrorGraph.load(tmp_path / "graph.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"file_version": np.array(2)},
        {"extra": np.array(1)},
        {"metadata": np.array("{}")},
        {"metadata": np.array('{"provenance": {}, "samples": []}')},
    ],
)
def test_foreign_archives_are_refused(tmp_path, change):
    known = {"file_version": np.array(1), "weights": weights(), "metadata": np.array("{}")}
    np.savez(tmp_path / "graph.npz", **(known | change))
    with pytest.raises(InvalidGraphError):
        ErrorGraph.load(tmp_path / "graph.npz")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        ErrorGraph.load(tmp_path / "none.npz")


def test_belongings_must_fit():
    with pytest.raises(InvalidGraphError, match="provenance is for 6 steps"):
        ErrorGraph(weights(), provenance=Provenance(num_inference_steps=6))
    with pytest.raises(InvalidGraphError, match=r"shape \(samples, 5, 5\)"):
        ErrorGraph(weights(), np.zeros((2, 4, 4)))
    with pytest.raises(InvalidGraphError, match="1 samples, but errors of 2"):
        ErrorGraph(weights(), np.zeros((2, 5, 5)), samples=[Sample("a", 0)])
