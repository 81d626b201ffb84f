"""The two-stage autoencoder: causality, chunks and lengths."""

import pytest
import torch

from lemica_backend.models.open_sora.causal import CausalConv3d, ResidualBlock
from lemica_backend.models.open_sora.sizes import latent_frames
from lemica_backend.models.open_sora.temporal_vae import TemporalSizes, TemporalVAE, _lengthen
from lemica_backend.models.open_sora.vae import OpenSoraVAE
from tests.tiny_open_sora import VAE


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def vae(pipeline):
    return pipeline.vae


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_a_causal_convolution_does_not_look_ahead(kernel, stride):
    torch.manual_seed(0)
    convolution = CausalConv3d(2, 3, kernel, stride=stride)
    video = torch.randn(1, 2, 8, 4, 5)
    other = video.clone()
    other[:, :, 5] += 1
    before, after = convolution(video), convolution(other)
    assert before.shape == (1, 3, 8 // stride, 4, 5)
    changed = (before - after).abs().sum((0, 1, 3, 4)) > 1e-6
    assert not changed[: 5 // stride].any()
    assert changed[5 // stride]


def test_what_is_before_the_video_is_zero():
    torch.manual_seed(0)
    convolution = CausalConv3d(1, 1, 3, bias=False)
    video = torch.randn(1, 1, 4, 3, 3)
    padded = torch.cat([torch.zeros(1, 1, 2, 3, 3), video], dim=2)
    assert torch.allclose(convolution(video), convolution(padded)[:, :, 2:], atol=1e-6)


def test_neighbouring_channels_become_neighbouring_frames():
    hidden = torch.arange(2.0 * 2 * 3).view(1, 4, 3, 1, 1)  # two channels out, three frames in
    frames = _lengthen(hidden)[0, :, :, 0, 0]
    assert frames.tolist() == [[0, 3, 1, 4, 2, 5], [6, 9, 7, 10, 8, 11]]


def test_a_residual_block_that_adds_nothing_passes_its_input():
    block = ResidualBlock(4, 4, 2)
    block.conv2.conv.weight.zero_()
    video = torch.randn(1, 4, 3, 2, 2)
    assert torch.equal(block(video), video)


def test_only_the_last_two_levels_halve_the_frames():
    assert [TemporalSizes().is_halved_after(level) for level in range(4)] == [False, True, True, False]


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (2, 1), (4, 1), (5, 2), (17, 5)])
def test_a_chunk_goes_to_a_quarter_and_back(frames, latents):
    torch.manual_seed(0)
    stage = TemporalVAE(TemporalSizes(**VAE["temporal"]))
    encoded = stage.encode(torch.randn(1, 4, frames, 2, 3))
    assert encoded.shape == (1, 4, latents, 2, 3)
    assert stage.decode(encoded, frames).shape == (1, 4, frames, 2, 3)


def test_a_short_chunk_is_the_end_of_a_whole_one():
    torch.manual_seed(0)
    stage = TemporalVAE(TemporalSizes(**VAE["temporal"]))
    latents, video = torch.randn(1, 4, 2, 2, 3), torch.randn(1, 4, 6, 2, 3)
    assert torch.equal(stage.decode(latents, 6), stage.decode(latents, 8)[:, :, 2:])
    with_zeros = torch.cat([torch.zeros(1, 4, 2, 2, 3), video], dim=2)
    assert torch.equal(stage.encode(video), stage.encode(with_zeros))


@pytest.mark.parametrize("num_frames", [1, 4, 17, 21, 34, 51])
def test_latents_and_frames_have_the_stated_lengths(vae, num_frames):
    frames = latent_frames(num_frames)
    assert frames == vae.latent_frames(num_frames)
    video = vae.decode(torch.randn(1, 4, frames, 2, 3), num_frames)
    assert video.shape == (1, 3, num_frames, 8, 12)
    assert vae.encode(video).shape == (1, 4, frames, 2, 3)


def test_chunks_do_not_see_each_other(vae):
    latents = torch.randn(1, 4, 7, 2, 3)
    both = vae.decode(latents, 22)
    assert torch.allclose(both[:, :, :17], vae.decode(latents[:, :, :5], 17), atol=1e-5)
    assert torch.allclose(both[:, :, 17:], vae.decode(latents[:, :, 5:], 5), atol=1e-5)
    video = torch.randn(1, 3, 22, 8, 12)
    whole, last = vae.encode(video), vae.encode(video[:, :, 17:])
    assert torch.allclose(whole[:, :, 5:], last, atol=1e-5)


def test_latents_are_standardised_and_put_back():
    torch.manual_seed(0)
    vae = OpenSoraVAE(spatial=VAE["spatial"], temporal=None)
    video = torch.rand(1, 3, 2, 8, 12) * 2 - 1
    plain, decoded = vae.encode(video), vae.decode(vae.encode(video), 2)
    vae.scale.fill_(3.0)
    vae.shift.fill_(0.5)
    assert torch.allclose(vae.encode(video), (plain - 0.5) / 3, atol=1e-6)
    assert torch.allclose(vae.decode(vae.encode(video), 2), decoded, atol=1e-5)
    frames = vae.spatial_vae["module"].encode(video[:, :, 0]).latent_dist.mode()
    assert torch.allclose(plain[:, :, 0], frames * 0.18215, atol=1e-6)


def test_without_a_second_stage_each_frame_has_latents():
    torch.manual_seed(0)
    vae = OpenSoraVAE(spatial=VAE["spatial"], temporal=None, scaling_factor=1.0)
    video = torch.rand(1, 3, 6, 8, 12) * 2 - 1
    latents = vae.encode(video)
    assert latents.shape == (1, 4, 6, 2, 3)
    assert vae.latent_frames(6) == 6
    one = vae.spatial_vae["module"].decode(latents[:, :, 5]).sample
    assert torch.allclose(vae.decode(latents, 6)[:, :, 5], one, atol=1e-5)
