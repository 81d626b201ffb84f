"""Saving a video and reading it back."""

import io
import sys

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from lemica_client import InvalidRequestError, LemicaClientError, MissingDependencyError, Video


def make_frames(count=6, height=32, width=48):
    """A bright square that moves over a dark ground: few colours, large areas, as every format can keep."""
    frames = np.full((count, height, width, 3), (10, 20, 60), np.uint8)
    for index in range(count):
        frames[index, 8:24, 4 + 4 * index : 20 + 4 * index] = (230, 200, 40)
    return frames


def read_back(path):
    if path.suffix == ".webp":  # FFmpeg cannot decode animated WebP
        return np.stack([np.array(image.convert("RGB")) for image in ImageSequence.Iterator(Image.open(path))])
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(("suffix", "tolerance"), [("mp4", 6), ("gif", 3), ("webp", 0)])
def test_saved_frames_read_back(tmp_path, suffix, tolerance):
    frames = make_frames()
    path = Video({"fps": 8}, frames=frames).save(tmp_path / f"video.{suffix}")
    got = read_back(path).astype(int)
    assert got.shape == frames.shape
    assert np.abs(got - frames).mean() <= tolerance
    # solid areas away from the moving edge: the colours themselves, not only their mean
    np.testing.assert_allclose(got[:, 14:18, 26:28], frames[:, 14:18, 26:28], atol=12)


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp"])
@pytest.mark.parametrize("count", [1, 2])
def test_short_videos_keep_their_frames(tmp_path, suffix, count):
    path = Video({}, frames=make_frames(count)).save(tmp_path / f"video.{suffix}")
    assert len(read_back(path)) == count


@pytest.mark.parametrize("fps", [5, 8, 25])
def test_the_frame_rate_is_the_servers(tmp_path, fps):
    path = Video({"fps": fps}, frames=make_frames()).save(tmp_path / "video.mp4")
    with av.open(path) as container:
        assert container.streams.video[0].average_rate == fps


def test_mp4_is_what_browsers_play(tmp_path):
    with av.open(Video({}, frames=make_frames()).save(tmp_path / "video.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", 1)


def test_an_odd_size_is_refused_for_mp4_only(tmp_path):
    video = Video({}, frames=make_frames(height=31))
    with pytest.raises(InvalidRequestError, match="31 x 48"):
        video.save(tmp_path / "video.mp4")
    assert read_back(video.save(tmp_path / "video.webp")).shape[1:3] == (31, 48)


def test_the_servers_file_is_written_as_it_came(tmp_path):
    video = Video({}, frames=make_frames(), file_bytes=b"from the server", file_format="mp4")
    assert video.save(tmp_path / "a.mp4").read_bytes() == b"from the server"
    assert video.save(str(tmp_path / "b.MP4")).read_bytes() == b"from the server"


def test_another_suffix_than_the_servers_is_encoded_here(tmp_path):
    video = Video({}, frames=make_frames(), file_bytes=b"from the server", file_format="mp4")
    assert video.save(tmp_path / "a.gif").read_bytes().startswith(b"GIF89a")


def test_without_frames_only_the_servers_file_can_be_saved(tmp_path):
    video = Video({}, file_bytes=b"from the server", file_format="gif")
    assert video.save(tmp_path / "a.gif").is_file()
    with pytest.raises(LemicaClientError, match="want_frames"):
        video.save(tmp_path / "a.mp4")
    with pytest.raises(LemicaClientError, match="want_frames"):
        _ = video.frames
    assert "file only" in repr(video)


@pytest.mark.parametrize("name", ["video.avi", "video", ".mp4", "video.mp4.txt"])
def test_a_suffix_that_is_no_format_is_refused(tmp_path, name):
    with pytest.raises(InvalidRequestError, match="mp4, gif, webp"):
        Video({}, frames=make_frames()).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[client\]' in a checkout of lemica"):
        Video({}, frames=make_frames()).save(tmp_path / "video.mp4")
    assert Video({}, file_bytes=b"x", file_format="mp4").save(tmp_path / "video.mp4").is_file()


def test_frames_may_be_a_view(tmp_path):
    mirrored = make_frames()[:, :, ::-1]
    got = read_back(Video({}, frames=mirrored).save(tmp_path / "video.webp"))
    np.testing.assert_array_equal(got, mirrored)


def test_a_gif_loops(tmp_path):
    path = Video({}, frames=make_frames()).save(tmp_path / "video.gif")
    assert Image.open(io.BytesIO(path.read_bytes())).info["loop"] == 0
