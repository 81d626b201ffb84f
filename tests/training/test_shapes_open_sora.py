"""The small Open-Sora's training: what can go wrong without a run of hours."""

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import T5Config, T5EncoderModel

from lemica_backend.models import load_model
from shapes.autoencoder import CONFIG
from shapes.batches import tokenise
from shapes.fit import Schedule
from shapes.model import TEXT
from shapes.pool import Pool
from shapes.render import FRAMES
from shapes.tokenizer import build_tokenizer
from shapes_open_sora.export import export_open_sora
from shapes_open_sora.model import TextToVideo
from shapes_open_sora.train import BLIND, SHIFT, flow_loss, noise_shares, train_open_sora

SMALL = {"depth": 1, "hidden_size": 32, "num_heads": 2}
CAPTIONS = ["a red circle", "a blue square moving left on a navy background"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def make_model(**changes):
    torch.manual_seed(0)
    return TextToVideo(T5EncoderModel(T5Config(**TEXT)).eval(), **SMALL | changes)


def make_batch(tokenizer, dropped=(False, False), frames=FRAMES):
    torch.manual_seed(1)
    return tokenise(*torch.randn(2, 2, 4, frames, 20, 20), CAPTIONS, list(dropped), tokenizer)


def wake(model):
    """Give what starts at zero a size, so that everything shows."""
    for parameter in model.denoiser.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@torch.no_grad()
def test_a_dropped_caption_is_the_null_text_of_its_own_length(tokenizer):
    model, batch = wake(make_model()), make_batch(tokenizer, dropped=(False, True))
    output = model(batch.latents, torch.tensor([500.0, 500.0]), batch)
    tokens = len(tokenizer(CAPTIONS[1]).input_ids)
    null = model.denoiser.null_text(tokens)[None]
    given = {"fps": torch.tensor([8.0]), "height": 80, "width": 80}
    alone = model.denoiser(batch.latents[1:], torch.tensor([500.0]), null, **given)[:, :4]
    assert (output[1] - alone[0]).abs().max() <= 1e-4
    kept = model(batch.latents, torch.tensor([500.0, 500.0]), make_batch(tokenizer))
    assert (kept[0] - output[0]).abs().max() <= 1e-5
    assert (kept[1] - output[1]).abs().max() > 1e-3


@torch.no_grad()
def test_single_frames_are_told_apart_from_clips(tokenizer):
    model, batch = wake(make_model()), make_batch(tokenizer, frames=1)
    seen = []
    model.denoiser.fps_embedder.register_forward_pre_hook(lambda _module, args: seen.append(args[0].tolist()))
    model(batch.latents, torch.tensor([500.0, 500.0]), batch)
    model(make_batch(tokenizer).latents, torch.tensor([500.0, 500.0]), make_batch(tokenizer))
    assert seen == [[120.0, 120.0], [8.0, 8.0]]


class Oracle(torch.nn.Module):
    """Knows the clip, and what is mixed into it."""

    def __init__(self, clip):
        super().__init__()
        self.clip = clip

    def forward(self, noisy, timestep, batch):
        level = timestep[:, None, None, None, None] / 1000
        noise = (noisy - (1 - level) * batch.latents) / level
        return self.clip - noise


def test_the_loss_of_the_true_velocity_is_zero_and_at_blind_timesteps_means_are_the_clips(tokenizer):
    batch = make_batch(tokenizer)
    assert flow_loss(Oracle(batch.means), batch, layout=True) < 1e-6
    assert flow_loss(Oracle(batch.latents), batch, layout=True) > 0.5
    torch.manual_seed(0)  # neither of the two rows is at a blind timestep
    assert flow_loss(Oracle(batch.latents), batch, layout=False) < 1e-4


def test_layout_is_learned_at_high_noise_and_drawing_below():
    assert noise_shares(64, FRAMES, layout=True).min() >= BLIND
    assert noise_shares(64, 1, layout=False).max() < 0.9
    shares = noise_shares(1000, FRAMES, layout=False)
    assert shares.median().item() == pytest.approx(SHIFT * 0.5 / (1 + (SHIFT - 1) * 0.5), abs=0.01)
    assert shares.max() > BLIND


def test_one_batch_can_be_learned(tokenizer):
    model, batch = make_model(), make_batch(tokenizer)
    optimizer = torch.optim.AdamW(model.denoiser.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(1)  # the same noise, so that the loss can only fall by learning
        loss = flow_loss(model, batch, layout=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_training_carries_on_where_it_was_and_moves_the_denoiser_only(tmp_path, monkeypatch):
    monkeypatch.setattr("shapes.fit.shutil.which", lambda _name: None)  # compiling takes longer than the test
    pool = Pool(torch.randn(8, 4, FRAMES, 20, 20).half(), torch.arange(8))
    before = {name: tensor.clone() for name, tensor in make_model().state_dict().items()}

    def run(iterations):
        schedule = Schedule(iterations, layout_iterations=1, batch=2, image_share=0.5)
        return train_open_sora(tmp_path, pool, schedule=schedule, device="cpu", start=make_model())

    run(2)
    assert torch.load(tmp_path / "open_sora.pt", weights_only=True)["iteration"] == 2
    model = run(4)
    assert torch.load(tmp_path / "open_sora.pt", weights_only=True)["iteration"] == 4
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("denoiser.") for name in moved)
    assert "denoiser.y_embedder.y_embedding" not in moved


@torch.no_grad()
def test_the_exported_folder_is_served_as_the_model_was_trained(tmp_path, tokenizer):
    torch.manual_seed(0)
    model, autoencoder = wake(make_model()).eval(), AutoencoderKL(**CONFIG).eval()
    batch = make_batch(tokenizer)
    expected = model(batch.latents, torch.tensor([500.0, 500.0]), batch)
    frames = autoencoder.decode(batch.latents[0].transpose(0, 1)).sample
    export_open_sora(model, autoencoder, tmp_path)
    served = load_model("open_sora", tmp_path, dtype=torch.float32, device="cpu")
    assert served.info.latents_shape == (4, FRAMES, 20, 20)
    assert (served.info.num_frames, served.info.height, served.info.width) == (FRAMES, 80, 80)
    assert served.info.scheduler_config["shift"] == SHIFT
    stem = served.stem(batch.latents, torch.tensor([500.0, 500.0]))
    texts = [served.encode_text(caption, "", ("cond",))["cond"] for caption in CAPTIONS]
    output = -served.head(served.blocks(stem, texts), stem)
    assert (output - expected).abs().max() <= 0.02 * expected.abs().max()  # half precision is stored
    pixels = (frames / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255
    assert (torch.from_numpy(served.decode(batch.latents[0])).float() - pixels).abs().max() <= 3
