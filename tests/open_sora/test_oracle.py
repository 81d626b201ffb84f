"""Against tensors that the official classes made; skipped where those are not at hand."""

import pytest
import torch

from lemica_backend.models.open_sora.embeddings import FrameRotation, patch_positions, rotate
from lemica_backend.models.open_sora.scheduler import RectifiedFlowScheduler, timestep_shift
from lemica_backend.models.open_sora.temporal_vae import TemporalSizes, TemporalVAE
from lemica_backend.models.open_sora.transformer import STDiT3
from lemica_backend.models.open_sora.vae import OpenSoraVAE
from tests.open_sora.oracle import case, facts, needs_oracle, tensors
from tests.tiny.family import assert_close

pytestmark = needs_oracle

TRANSFORMER = ("in_channels", "caption_channels", "model_max_length", "depth", "hidden_size", "num_heads")


def shapes(model):
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module", autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def transformer():
    config = facts("stdit3_config")
    net = STDiT3(**{name: config[name] for name in TRANSFORMER}).eval()
    net.load_state_dict(tensors("stdit3_weights"))
    return net


@pytest.fixture(scope="module")
def vae():
    config = facts("vae_config")
    stated = config["temporal"]
    temporal = {"filters": stated["filters"], "blocks": stated["num_res_blocks"], "groups": stated["num_groups"]}
    model = OpenSoraVAE(spatial=config["spatial"], temporal=temporal).eval()
    model.load_state_dict(tensors("vae_weights"))
    return model


@pytest.mark.parametrize(
    ("make", "group"), [(STDiT3, "stdit3_xl2"), (lambda: TemporalVAE(TemporalSizes()), "vae_temporal")]
)
def test_the_published_size_has_the_published_names_and_shapes(make, group):
    with torch.device("meta"):
        assert shapes(make()) == facts("full_size_keys")[group]


def predict(net, given):
    rows = len(given["x"])
    return net(
        given["x"],
        given["timestep"],
        given["y"][:, 0],
        fps=given["fps"].expand(rows),
        height=given["height"][0].item(),
        width=given["width"][0].item(),
        text_mask=given["mask"].bool().expand(rows, -1) if "mask" in given else None,
        active=given.get("x_mask"),
    )


@pytest.mark.parametrize("name", ["cfg", "mixed_t", "odd_hw", "x_mask", "no_mask"])
def test_a_forward(transformer, name):
    given = case("stdit3_cases", name)
    assert_close(predict(transformer, given), given["out"])


def test_the_block_stack_from_its_input_to_its_output(transformer):
    given, seen = case("stdit3_cases", "mixed_t"), []
    first, last = transformer.spatial_blocks[0], transformer.temporal_blocks[-1]
    hooks = [
        first.register_forward_pre_hook(lambda _block, args: seen.append(args[0])),
        last.register_forward_hook(lambda _block, _args, output: seen.append(output)),
    ]
    predict(transformer, given)
    for hook in hooks:
        hook.remove()
    for ours, theirs in zip(seen, (given["blocks_in"], given["blocks_out"]), strict=True):
        assert_close(ours.flatten(1, 2), theirs)


def test_positions():
    ours = patch_positions(3, 4, 144, scale=0.5 * 3 / 4, device=torch.device("cpu"))  # 3 x 4 patches have base 3
    assert (ours - tensors("stdit3_cases")["pos_emb_3x4_scale.5_base4"][0]).abs().max() <= 1e-5


def test_rotation():
    made = tensors("stdit3_cases")
    rope = FrameRotation(72)
    assert (rope.freqs - made["rope_freqs"]).abs().max() <= 1e-6
    assert (rotate(made["rope_in"], rope(made["rope_in"].shape[-2])) - made["rope_out"]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("height", "width", "num_frames"), [(240, 426, 51), (240, 426, 68), (480, 854, 51), (512, 512, 1), (720, 1280, 102)]
)
def test_timesteps(height, width, num_frames):
    scheduler = RectifiedFlowScheduler(shift=timestep_shift(num_frames=num_frames, height=height, width=width))
    scheduler.set_timesteps(30)
    theirs = tensors("rflow_cases")[f"timesteps30.{height}x{width}x{num_frames}"]
    assert (scheduler.timesteps - theirs).abs().max() <= 1e-3


def test_six_guided_steps(transformer):
    made = tensors("rflow_cases")
    info = {name: made[f"info.{name}"] for name in ("fps", "height", "width", "num_frames")}
    height, width, num_frames = (int(info[name][0]) for name in ("height", "width", "num_frames"))
    scheduler = RectifiedFlowScheduler(shift=timestep_shift(num_frames=num_frames, height=height, width=width))
    scheduler.set_timesteps(6)
    null = transformer.y_embedder.y_embedding.expand(2, -1, -1)
    texts, mask = torch.cat([made["y"][:, 0], null]), made["mask"].bool().repeat(2, 1)
    latents, scale = made["z0"], made["z_final"].abs().max()
    for step, timestep in enumerate(scheduler.timesteps):
        assert (made["t"][step] - timestep).abs().max() <= 1e-3
        assert (latents - made["traj"][step]).abs().max() <= 1e-4 * scale
        both = {"fps": info["fps"].repeat(2), "height": height, "width": width, "text_mask": mask}
        output = -transformer(latents.repeat(2, 1, 1, 1, 1), timestep.expand(4), texts, **both)[:, :4]
        cond, uncond = output.chunk(2)
        latents = scheduler.step(uncond + 7 * (cond - uncond), timestep, latents, return_dict=False)[0]
    assert (latents - made["z_final"]).abs().max() <= 1e-4 * scale


@pytest.mark.parametrize("num_frames", [1, 4, 17, 21, 34])
def test_decoding(vae, num_frames):
    made = case("vae_cases", f"dec{num_frames}")
    ours, theirs = vae.decode(made["z"], num_frames), made["x"]
    assert ours.shape == theirs.shape
    rounding = torch.finfo(theirs.dtype).eps / 2 * theirs.float().abs()  # one case is stored in half precision
    assert ((ours - theirs.float()).abs() <= 1e-4 + rounding).all()


@pytest.mark.parametrize("num_frames", [4, 17])
def test_encoding_along_time(vae, num_frames):
    made = case("vae_cases", f"tenc{num_frames}")
    assert (vae.temporal_vae.encode(made["x"]) - made["mode"]).abs().max() <= 1e-4
