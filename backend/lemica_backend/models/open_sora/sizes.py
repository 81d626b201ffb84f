"""How many frames become how many latents."""

from __future__ import annotations

CHUNK_FRAMES = 17  # what the temporal autoencoder encodes at a time
CHUNK_LATENTS = 5  # what it makes of them
TEMPORAL_FACTOR = 4


def latent_frames(num_frames: int) -> int:
    """Return the latents that a video's chunks have in time: 5 for each 17 frames, and one for each 4 of the rest.

    Examples
    --------
    >>> [latent_frames(frames) for frames in (1, 4, 17, 21, 51)]
    [1, 1, 5, 6, 15]
    """
    chunks, rest = divmod(num_frames, CHUNK_FRAMES)
    return CHUNK_LATENTS * chunks + -(-rest // TEMPORAL_FACTOR)
