"""Every family and variant that is served, at tiny size."""

from tests.tiny import cogvideox, hunyuan_video, hunyuan_video_15, latte, ltx, mochi, open_sora, wan
from tests.tiny.family import Tiny

_COGVIDEOX = {"max_sequence_length": cogvideox.TOKENS}
_TRUE_CFG = {"true_cfg_scale": 3.0}
_DYNAMIC = {"use_dynamic_cfg": True}
_RATE, _STEP = {"frame_rate": 30}, {"decode_timestep": 0.05}
_NOISE = {"decode_timestep": 0.05, "decode_noise_scale": 0.025}
_LOW = {"guidance_scale_2": 3.0}
_RESCALE = {"guidance_rescale": 0.7}

FAMILIES = {
    each.name: each
    for each in (
        latte.TINY,
        latte.TEMPORAL,
        open_sora.TINY,
        Tiny("wan", "unipc", wan.tiny_wan, wan.SIZE),
        Tiny("wan", "euler", wan.tiny_wan_euler, wan.SIZE),
        Tiny("wan", "2.2", wan.tiny_wan_22, wan.SIZE, _LOW, _LOW),
        Tiny("wan", "2.2-5b", wan.tiny_wan_22_5b, wan.SIZE_5B),
        Tiny("wan_i2v", "2.1", wan.tiny_wan_i2v, wan.SIZE, takes_image=True),
        Tiny("wan_i2v", "2.2", wan.tiny_wan_22_i2v, wan.SIZE, _LOW, _LOW, takes_image=True),
        Tiny("wan_i2v", "2.2-5b", wan.tiny_wan_22_5b_i2v, wan.SIZE_5B, takes_image=True),
        Tiny("cogvideox", "2b", cogvideox.tiny_2b, cogvideox.SIZE, {}, _COGVIDEOX),
        Tiny("cogvideox", "5b", cogvideox.tiny_5b, cogvideox.SIZE, _DYNAMIC, _DYNAMIC | _COGVIDEOX),
        Tiny("cogvideox", "1.5", cogvideox.tiny_15, cogvideox.SIZE, {}, _COGVIDEOX),
        Tiny("cogvideox_i2v", "5b", cogvideox.tiny_5b_i2v, cogvideox.SIZE, {}, _COGVIDEOX, takes_image=True),
        Tiny("cogvideox_i2v", "1.5", cogvideox.tiny_15_i2v, cogvideox.SIZE, {}, _COGVIDEOX, takes_image=True),
        Tiny("hunyuan_video", "embedded", hunyuan_video.tiny_hunyuan_video, hunyuan_video.SIZE),
        Tiny("hunyuan_video", "true-cfg", hunyuan_video.tiny_hunyuan_video, hunyuan_video.SIZE, _TRUE_CFG, _TRUE_CFG),
        hunyuan_video_15.TINY,
        Tiny("ltx", "0.9", ltx.tiny_ltx, ltx.SIZE, _RATE, _RATE),
        Tiny("ltx", "rescaled", ltx.tiny_ltx, ltx.SIZE, _RESCALE, _RESCALE),
        Tiny("ltx", "0.9.1", ltx.tiny_ltx_091, ltx.SIZE, _STEP, _STEP),
        Tiny("ltx", "0.9.5", ltx.tiny_ltx_091, ltx.SIZE, _NOISE, _NOISE),
        Tiny("mochi", "1", mochi.tiny_mochi, mochi.SIZE),
        Tiny("mochi", "zeros", mochi.tiny_mochi_zeros, mochi.SIZE),
    )
}
