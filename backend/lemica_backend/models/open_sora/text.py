"""From a prompt to the states of the text encoder."""

from __future__ import annotations

from typing import Any

from diffusers import LattePipeline
from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor

from lemica_backend.errors import InvalidRequestError, ModelLoadError
from lemica_backend.models.open_sora.settings import VideoSettings

_SCORE = "aesthetic score:"


class TextConditioner:
    """Encodes prompts one at a time.

    Parameters
    ----------
    tokenizer, encoder
        Of T5, in the classes of transformers.
    settings : VideoSettings
    max_tokens : int
        That the transformer was made for.

    Raises
    ------
    ModelLoadError
        If a package that cleaning needs is missing.
    """

    def __init__(self, tokenizer: Any, encoder: Any, settings: VideoSettings, *, max_tokens: int) -> None:
        if settings.clean_caption and not (is_bs4_available() and is_ftfy_available()):
            raise ModelLoadError(
                "clean_caption needs the packages beautifulsoup4 and ftfy: "
                "pip install '.[backend]' in a checkout of lemica"
            )
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._settings = settings
        self._max_tokens = max_tokens

    def encode(self, prompt: str) -> Tensor:
        """Return the last hidden states, shape (tokens, width).

        Raises
        ------
        InvalidRequestError
            If the prompt has too many tokens.
        """
        ids = self._tokenizer(self.prepare(prompt), return_tensors="pt").input_ids
        if ids.shape[1] > self._max_tokens:
            raise InvalidRequestError(
                f"prompt has {ids.shape[1]} tokens with the score that is added; "
                f"at most {self._max_tokens} are allowed: shorten it"
            )
        states: Tensor = self._encoder(input_ids=ids.to(self._encoder.device)).last_hidden_state[0]
        return states

    def prepare(self, prompt: str) -> str:
        """Return the text as captions were in training: with a score, then cleaned, or else stripped and in lower case.

        A prompt that brings a score of its own keeps that one.
        """
        score = self._settings.aesthetic_score
        if score is not None and _SCORE not in prompt:
            prompt = f"{prompt} {_SCORE} {score:.1f}."
        if not self._settings.clean_caption:
            return prompt.lower().strip()
        return clean(clean(prompt))  # what the first pass unescapes may need the second


def clean(caption: str) -> str:
    """Return the caption as diffusers cleans it for DeepFloyd's T5, once."""
    cleaned: str = LattePipeline._clean_caption(LattePipeline, caption)
    return cleaned
