"""Every format, decoded again by somebody else's reader where there is one."""

from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from lemica_backend.errors import InvalidRequestError
from lemica_backend.video_file import check_size, encode_video

FPS = 8


def bars(num_frames=16, height=64, width=64):
    """A red bar that wanders between a blue and a green edge, on black: no two frames are alike."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[:, index * width // num_frames : (index + 1) * width // num_frames] = (255, 0, 0)
    frames[:, : height // 8] = (0, 0, 255)
    frames[:, -height // 8 :] = (0, 255, 0)
    return frames


def decode_images(data):
    with Image.open(BytesIO(data)) as image:
        return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])


def durations_ms(data):
    with Image.open(BytesIO(data)) as image:
        return [_load(image, index).info["duration"] for index in range(image.n_frames)]


def _load(image, index):
    image.seek(index)
    image.load()
    return image


def decode_mp4(data):
    with av.open(BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def mean_error(decoded, frames):
    assert decoded.shape == frames.shape
    return np.abs(decoded.astype(int) - frames).mean()


def test_mp4_is_h264_that_every_player_takes():
    data = encode_video(bars(), "mp4", FPS)
    with av.open(BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 16)
        assert stream.average_rate == FPS
        assert float(stream.duration * stream.time_base) == pytest.approx(16 / FPS)
    assert data.index(b"moov") < data.index(b"mdat")  # faststart: plays before it is whole
    assert mean_error(decode_mp4(data), bars()) < 3


def test_mp4_names_its_colours_and_keeps_them():
    frames = np.empty((2, 32, 32, 3), np.uint8)
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255), (17, 34, 51)):
        frames[:] = colour
        data = encode_video(frames, "mp4", FPS)
        assert np.abs(decode_mp4(data).astype(int) - colour).max() <= 6
    with av.open(BytesIO(data)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


@pytest.mark.parametrize(("height", "width"), [(33, 32), (32, 33), (1, 1)])
def test_mp4_of_an_odd_size_is_refused_not_changed(height, width):
    with pytest.raises(InvalidRequestError, match=f"even height and width, the video has {height} x {width}"):
        encode_video(bars(2, height, width), "mp4", FPS)
    with pytest.raises(InvalidRequestError):
        check_size("mp4", height, width)
    check_size("gif", height, width)


@pytest.mark.parametrize("size", [(64, 64), (33, 47)], ids=str)
def test_gif_is_exact_within_256_colours_and_loops(size):
    frames = bars(16, *size)
    data = encode_video(frames, "gif", FPS)
    assert mean_error(decode_images(data), frames) == 0
    assert sum(durations_ms(data)) == pytest.approx(2000, abs=10)
    with Image.open(BytesIO(data)) as image:
        assert image.info["loop"] == 0  # for ever


@pytest.mark.parametrize("size", [(64, 64), (33, 47)], ids=str)
def test_webp_is_animated_and_loops(size):
    frames = bars(16, *size)
    data = encode_video(frames, "webp", FPS)
    assert mean_error(decode_images(data), frames) < 6
    assert durations_ms(data) == [125] * 16
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.info["loop"]) == ("WEBP", 0)


@pytest.mark.parametrize("file_format", ["mp4", "gif", "webp"])
def test_noise_and_single_frames_and_views_survive(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 96, 3), dtype=np.uint8)
    decode = decode_mp4 if file_format == "mp4" else decode_images
    assert decode(encode_video(noise[:, :, ::2], file_format, FPS)).shape == (5, 48, 48, 3)
    assert decode(encode_video(noise[:1], file_format, FPS)).shape == (1, 48, 96, 3)


def test_unknown_format_is_refused():
    with pytest.raises(InvalidRequestError, match="file_format is 'avi'; allowed are mp4, gif, webp"):
        encode_video(bars(), "avi", FPS)


@pytest.mark.parametrize("fps", [1, 24, 30, 60])
def test_mp4_keeps_the_rate(fps):
    with av.open(BytesIO(encode_video(bars(4), "mp4", fps))) as container:
        assert container.streams.video[0].average_rate == fps
