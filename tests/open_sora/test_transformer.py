"""The mathematics of STDiT3 on tensors small enough to redo it by hand."""

import math

import pytest
import torch
from torch.nn import functional

from lemica_backend.models.open_sora.embeddings import FrameRotation, NumberEmbedding, patch_positions, rotate
from lemica_backend.models.open_sora.layers import Block, CrossAttention, Texts
from lemica_backend.models.open_sora.model import _pad
from lemica_backend.models.open_sora.transformer import STDiT3

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def net(pipeline):
    return pipeline.transformer


def inputs(rows=2, frames=3, height=6, width=8, tokens=5):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((rows, 4, frames, height, width), generator=generator)
    return latents, torch.randn((rows, tokens, 32), generator=generator)


def forward(net, latents, text, timesteps=(700.0, 30.0), **options):
    rows = len(latents)
    given = {"fps": torch.full((rows,), 24.0), "height": 48, "width": 64}
    return net(latents, torch.tensor(timesteps[:rows]), text, **given | options)


def test_numbers_are_embedded_as_cosines_then_sines():
    embedding = NumberEmbedding(256)
    embedding.mlp = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(1, 1))
    embedding.mlp[1].forward = lambda waves: waves
    waves = embedding(torch.tensor([2.5]))[0]
    for at, expected in ((0, math.cos(2.5)), (127, math.cos(2.5 * 10_000 ** (-127 / 128))), (128, math.sin(2.5))):
        assert waves[at].item() == pytest.approx(expected, abs=1e-6)


def test_the_first_half_of_a_position_is_the_column_and_the_second_the_row():
    places = patch_positions(2, 8, 8, scale=0.5, device=CPU).view(2, 8, 8)
    assert torch.equal(places[0, :, :4], places[1, :, :4])
    assert torch.equal(places[:, 0, 4:], places[:, 7, 4:])
    column, row = 3 * (4 / 8) / 0.5, 1 * (4 / 2) / 0.5  # the base of 16 patches is 4
    expected = [f(x / 100**i) for x in (column, row) for f in (math.sin, math.cos) for i in (0, 1)]
    assert places[1, 3].tolist() == pytest.approx(expected, abs=1e-6)


def test_rotation_turns_neighbouring_channels_and_keeps_distances():
    rope = FrameRotation(4)
    values = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).expand(3, 4)
    turned = rotate(values, rope(3))
    expected = [math.cos(2), math.sin(2), math.cos(2 / 100), math.sin(2 / 100)]
    assert turned[2].tolist() == pytest.approx(expected, abs=1e-6)
    query, key = torch.randn(2, 7, 4)
    scores = rotate(query[:1].expand(7, 4), rope(7)) @ rotate(key[:1].expand(7, 4), rope(7)).T
    assert scores.diagonal(1).std() < 1e-5  # only the distance of two frames counts
    assert scores.diagonal(0).mean() != pytest.approx(scores.diagonal(3).mean().item(), abs=1e-3)


def test_half_precision_keeps_the_angles(net):
    exact = net.rope(15)
    rope = FrameRotation(8).to(torch.bfloat16)
    assert rope.freqs.dtype == torch.bfloat16
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(rope(15), exact, strict=True))


def test_padded_and_masked_texts_are_as_packed_ones():
    torch.manual_seed(0)
    attention = CrossAttention(24, 3)
    hidden, texts = torch.randn(3, 11, 24), [torch.randn(length, 24) for length in (2, 7, 5)]
    together = attention(hidden, _pad(texts))
    alone = torch.cat([attention(row[None], Texts(text[None], None)) for row, text in zip(hidden, texts, strict=True)])
    assert (together - alone).abs().max() <= 1e-6
    assert _pad(texts[:1] * 2).shown is None


def test_attention_by_hand():
    torch.manual_seed(0)
    block = Block(8, 2, temporal=True)
    hidden = torch.randn(1, 8)[None].repeat(1, 3, 1) + torch.randn(1, 3, 8)
    rotation = FrameRotation(4)(3)
    query, key, value = (part.view(3, 2, 4) for part in block.attn.qkv(hidden[0]).chunk(3, dim=1))
    query, key = (part * part.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt() for part in (query, key))
    mixed = []
    for head in range(2):
        turned = [rotate(part[:, head], rotation) for part in (query, key)]
        mixed.append((turned[0] @ turned[1].T / 2).softmax(-1) @ value[:, head])
    expected = block.attn.proj(torch.cat(mixed, dim=1))
    assert (block.attn(hidden, rotation)[0] - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("temporal", [False, True])
def test_a_block_attends_within_frames_or_within_patches(temporal):
    """What changes in one token reaches its own frame only, or its own patch in all frames."""
    torch.manual_seed(0)
    block = Block(8, 2, temporal=temporal)
    hidden, texts = torch.randn(1, 3, 4, 8), Texts(torch.randn(1, 2, 8), None)
    modulation, rotation = torch.randn(1, 1, 6, 8), FrameRotation(4)(3)
    other = hidden.clone()
    other[0, 1, 2] += torch.randn(8)
    changed = (block(other, texts, modulation, rotation) - block(hidden, texts, modulation, rotation)).abs().sum(-1)[0]
    expected = torch.zeros(3, 4, dtype=torch.bool)
    expected[(slice(None), 2) if temporal else (1, slice(None))] = True
    assert torch.equal(changed > 1e-7, expected)


def normal(tokens):
    centred = tokens - tokens.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def test_a_block_by_hand():
    """Shift, scale and gate of the attention, then of the MLP; the text comes in between, bare."""
    torch.manual_seed(0)
    block = Block(8, 2, temporal=False)
    start, texts, modulation = torch.randn(1, 1, 5, 8), Texts(torch.randn(1, 3, 8), None), torch.randn(6, 8)
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = block.scale_shift_table + modulation
    tokens = start[0]
    tokens = tokens + gate * block.attn(normal(tokens) * (1 + scale) + shift, None)
    tokens = tokens + block.cross_attn(tokens, texts)
    inner = block.mlp.fc1(normal(tokens) * (1 + mlp_scale) + mlp_shift)
    inner = inner / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
    expected = tokens + mlp_gate * block.mlp.fc2(inner)
    made = block(start, texts, modulation[None, None], FrameRotation(4)(1))
    assert (made[0] - expected).abs().max() <= 1e-5


def test_the_head_by_hand(net):
    head, hidden, embedding = net.final_layer, torch.randn(2, 3, 4, 24), torch.randn(2, 24)
    shift, scale = (head.scale_shift_table[at] + embedding[1] for at in range(2))
    expected = head.linear(normal(hidden[1]) * (1 + scale) + shift)
    assert (head(hidden, embedding)[1] - expected).abs().max() <= 1e-5


def test_timesteps_and_frame_rates_add_up(net):
    timing = net.embed_times(torch.tensor([700.0]), torch.tensor([24.0]))
    expected = net.t_embedder(torch.tensor([700.0])) + net.fps_embedder(torch.tensor([24.0]))
    assert torch.equal(timing.embedding, expected)
    table = net.t_block[1](functional.silu(expected)).view(1, 1, 6, 24)
    assert (timing.modulation - table).abs().max() <= 1e-6


def test_rows_at_different_timesteps_are_as_alone(net):
    latents, text = inputs()
    together = forward(net, latents, text)
    alone = [
        forward(net, latents[row : row + 1], text[row : row + 1], (timestep,)) for row, timestep in enumerate((700, 30))
    ]
    assert (together - torch.cat(alone)).abs().max() <= 1e-5
    assert (forward(net, latents, text, (700.0, 800.0)) - together)[1].abs().max() > 1e-2


def test_sizes_that_are_no_whole_patches_are_padded_with_zeros_and_cropped(net):
    latents, text = inputs(height=5, width=7)
    whole = functional.pad(latents, (0, 1, 0, 1))
    output = forward(net, latents, text)
    assert output.shape == (2, 8, 3, 5, 7)
    assert torch.equal(output, forward(net, whole, text)[..., :5, :7])


def test_patches_come_back_where_they_were():
    net = STDiT3(caption_channels=8, model_max_length=4, depth=0, hidden_size=16, num_heads=2)
    net.final_layer.forward = lambda hidden, *_: hidden
    hidden = torch.randn(1, 2, 2 * 3, 2 * 2 * 8)
    video = net.predict(hidden, None, (4, 6))
    token = hidden[0, 1, 3 * 1 + 2].view(2, 2, 8)  # second frame, second row of patches, third column
    assert torch.equal(video[0, :, 1, 2:4, 4:6], token.movedim(-1, 0))


@pytest.mark.parametrize("options", [{"fps": torch.tensor([24.0, 8.0])}, {"height": 480}, {"width": 640}])
def test_frame_rate_and_size_condition(net, options):
    latents, text = inputs()
    change = (forward(net, latents, text, **options) - forward(net, latents, text)).abs().amax((1, 2, 3, 4))
    assert change[1] > 1e-3
    assert (change[0] > 1e-3) == ("fps" not in options)


def test_the_null_text_is_as_long_as_the_prompt(net, model):
    assert torch.equal(net.null_text(7), net.y_embedder.y_embedding[:7])
    short, long = (model.encode_text(prompt, "", ("uncond", "cond")) for prompt in ("a", "a cat that sleeps"))
    for texts in (short, long):
        assert texts["uncond"].shape == texts["cond"].shape
    assert torch.equal(long["uncond"][: len(short["uncond"])], short["uncond"])


def test_given_frames_are_at_timestep_zero(net):
    latents, text = inputs()
    everything = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(forward(net, latents, text, active=everything), forward(net, latents, text))
    nothing = forward(net, latents, text, active=~everything)
    hidden = {}
    hook = net.final_layer.register_forward_pre_hook(lambda _layer, args: hidden.update(zero=args[0]))
    forward(net, latents, text, (0.0, 0.0))
    zero = hidden["zero"]
    forward(net, latents, text, active=~everything)
    hook.remove()
    assert (hidden["zero"] - zero).abs().max() <= 1e-5
    assert (nothing - forward(net, latents, text, (0.0, 0.0))).abs().max() > 1e-2  # the head modulates them twice
