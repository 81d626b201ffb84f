"""Open-Sora's sampler as one plain loop over the whole transformer, which shares no code with the serving engine.

As the official one it pads every text to the model's length, masks the null text like the prompt, puts the
conditional branch first and steps along the velocity from noise to clip.
"""

import math

import torch

FRAMES_AT_ONCE = 4


@torch.no_grad()
def sample(pipeline, prompt, *, seed=7, guidance_scale=7.0, steps=6, latent_frames=6):
    """Return the final latents, shape (channels, frames, h, w)."""
    net, video = pipeline.transformer, pipeline.video
    score = "" if video.aesthetic_score is None else f" aesthetic score: {video.aesthetic_score}."
    states, mask = encode(pipeline, prompt + score)
    texts = torch.cat([states, net.y_embedder.y_embedding[None]])
    shape = (1, 4, latent_frames, video.height // 4, video.width // 4)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    times = timesteps(video, steps)
    for now, then in zip(times, [*times[1:], 0.0], strict=True):
        velocities = net(
            latents.repeat(2, 1, 1, 1, 1),
            torch.full((2,), 1000 * now),
            texts,
            fps=torch.full((2,), video.fps),
            height=video.height,
            width=video.width,
            text_mask=mask.repeat(2, 1),
        )[:, :4]
        cond, uncond = velocities.chunk(2)
        velocity = uncond + guidance_scale * (cond - uncond) if guidance_scale > 1 else cond
        latents = latents + velocity * (now - then)
    return latents[0].numpy()


def encode(pipeline, text):
    """Return the padded states, shape (1, L, width), and their mask, shape (1, L)."""
    longest = pipeline.transformer.config.model_max_length
    inputs = pipeline.tokenizer(
        text.lower().strip(), padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
    )
    output = pipeline.text_encoder(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)
    return output.last_hidden_state, inputs.attention_mask.bool()


def timesteps(video, steps):
    """Return the times, from 1 (noise) on."""
    ratio = video.shift or _shift(video)
    linear = [1 - step / steps for step in range(steps)]
    return [ratio * time / (1 + (ratio - 1) * time) for time in linear]


def _shift(video):
    whole_chunks = video.num_frames // 17
    return math.sqrt(video.height * video.width / 512**2) * math.sqrt(whole_chunks * 5)


@torch.no_grad()
def decode(pipeline, latents):
    """Return 21 frames in [0, 1], shape (frames, height, width, 3): a chunk of 17 and one of 4."""
    vae = pipeline.vae
    values = torch.from_numpy(latents)[None] * vae.scale + vae.shift
    parts = [vae.temporal_vae.decode(values[:, :, :5], 17), vae.temporal_vae.decode(values[:, :, 5:], 4)]
    frames = torch.cat(parts, dim=2)[0].transpose(0, 1) / 0.18215
    pixels = torch.cat([vae.spatial_vae["module"].decode(frame[None]).sample for frame in frames])
    return ((pixels + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()
