import numpy as np
import pytest
import torch

from demo.metrics import PSNR_CAP_DB, compare, lpips, psnr, ssim
from tests.demo.synthetic import moving_square


def grey(value, shape=(2, 32, 32, 3)):
    return np.full(shape, value, np.uint8)


def test_psnr_is_the_textbook_value_and_the_mean_over_frames():
    assert psnr(grey(100), grey(110)) == pytest.approx(20 * np.log10(255 / 10))
    one_frame_differs = grey(100)
    one_frame_differs[1] += 10
    assert psnr(grey(100), one_frame_differs) == pytest.approx((PSNR_CAP_DB + 20 * np.log10(255 / 10)) / 2)


def test_psnr_does_not_wrap_around_in_uint8():
    assert psnr(grey(0), grey(255)) == pytest.approx(0)
    assert psnr(grey(255), grey(0)) == pytest.approx(0)


def test_ssim_is_the_textbook_value_for_constant_images():
    a, b, c1 = 100, 150, (0.01 * 255) ** 2
    assert ssim(grey(a), grey(b)) == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), abs=1e-6)


@pytest.mark.parametrize("size", [32, 64, 80])
def test_identical_videos_are_perfect(lpips_weights, size):
    frames = moving_square(1, noise=20, size=size) if size >= 64 else moving_square(1, noise=20)[:, :size, :size]
    quality = compare(frames, frames)
    assert (quality.lpips, quality.psnr) == (0, PSNR_CAP_DB)
    assert quality.ssim == pytest.approx(1)


def test_every_metric_is_symmetric_and_gets_worse_with_noise(lpips_weights):
    clean = moving_square(1)
    noisy = [moving_square(1, noise) for noise in (2, 8, 32, 96)]
    for metric, better in ((lpips, -1), (ssim, 1), (psnr, 1)):
        values = [metric(clean, frames) for frames in noisy]
        assert values == pytest.approx([metric(frames, clean) for frames in noisy])
        assert values == sorted(values, reverse=better > 0), metric.__name__


def synthetic_pair(size=64):
    """Two images given by formulas, so that no file and no random generator stands behind the golden values."""
    y, x = np.indices((size, size)) / size
    smooth = np.stack([np.sin(7 * x), np.cos(5 * y), np.sin(9 * x * y)], axis=-1) * 0.5 + 0.5
    circle = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06)[..., None]
    a, b = np.where(circle, 1 - smooth, smooth), np.roll(smooth, 5, axis=1)
    return tuple(np.round(255 * image).astype(np.uint8)[None] for image in (a, b))


@pytest.mark.parametrize(("size", "golden"), [(64, 0.445254), (80, 0.563341), (256, 0.466455)])
def test_lpips_golden_values(lpips_weights, size, golden):
    """From a second implementation of AlexNet v0.1, checked against the official package's example images."""
    assert lpips(*synthetic_pair(size)) == pytest.approx(golden, abs=2e-5)


def test_lpips_is_the_mean_over_frames_however_many_there_are(lpips_weights):
    clean, noisy = np.tile(moving_square(1), (2, 1, 1, 1))[:21], np.tile(moving_square(1, 40), (2, 1, 1, 1))[:21]
    single = [lpips(clean[i : i + 1], noisy[i : i + 1]) for i in range(21)]
    assert lpips(clean, noisy) == pytest.approx(np.mean(single), rel=1e-5)


def test_lpips_enlarges_small_frames_to_64_pixels(lpips_weights):
    a, b = (image[:, ::4, ::2] for image in synthetic_pair(96))  # 24 x 48
    enlarged = [
        torch.nn.functional.interpolate(
            torch.from_numpy(np.ascontiguousarray(image)).permute(0, 3, 1, 2).float(), (64, 128), mode="bilinear"
        )
        for image in (a, b)
    ]
    by_hand = lpips(*(image.round().byte().permute(0, 2, 3, 1).numpy() for image in enlarged))
    assert lpips(a, b) == pytest.approx(by_hand, rel=0.02)  # by hand, the pixels are rounded


@pytest.mark.parametrize("metric", [lpips, ssim, psnr])
def test_what_is_no_pair_of_videos_is_refused(metric):
    with pytest.raises(ValueError, match="one shape"):
        metric(grey(0), grey(0, (1, 32, 32, 3)))
    with pytest.raises(ValueError, match="uint8 of shape"):
        metric(grey(0).astype(np.float32), grey(0).astype(np.float32))
    with pytest.raises(ValueError, match="uint8 of shape"):
        metric(grey(0)[..., :1], grey(0)[..., :1])


def test_ssim_refuses_frames_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(grey(0, (1, 8, 32, 3)), grey(0, (1, 8, 32, 3)))
