"""What only Latte has: captions that are cleaned, and a second autoencoder beside the first."""

import numpy as np
import pytest
import torch

from lemica_backend.errors import InvalidRequestError, ModelLoadError
from lemica_backend.models import load_model
from tests.tiny.families import FAMILIES
from tests.tiny.family import assert_close
from tests.tiny_latte import build_tiny_latte

WEB = "A (big) CAT &amp; dog, see https://cats.org <b>now</b>"


@pytest.fixture(scope="module")
def cleaning(load):
    return load(FAMILIES["latte-temporal"])


def test_captions_are_cleaned_as_the_pipeline_does(cleaning):
    assert_close(cleaning.ours(WEB), cleaning.theirs(WEB))
    kept = torch.as_tensor(cleaning.tiny.generate(cleaning.pipeline, WEB, clean_caption=False))
    assert (cleaning.ours(WEB) - kept).abs().max() > 1e-2


def test_what_cleaning_takes_away_does_not_count_as_tokens(load, cleaning):
    address = "a cat https://" + "x" * 200 + ".org"
    cleaning.job(address)
    with pytest.raises(InvalidRequestError, match="at most 120"):
        load(FAMILIES["latte-plain"]).job(address)


def test_the_autoencoder_beside_the_first_decodes(load, cleaning, tmp_path):
    build_tiny_latte(tmp_path)
    options = {"temporal_decoder": True}
    open_folder = lambda: load_model("latte", tmp_path, dtype=torch.float32, device="cpu", options=options)  # noqa: E731
    with pytest.raises(ModelLoadError, match="vae_temporal_decoder"):
        open_folder()
    cleaning.pipeline.vae.save_pretrained(tmp_path / "vae_temporal_decoder")
    latents = cleaning.model.initial_noise(0)
    frames = open_folder().decode(latents)
    assert np.array_equal(frames, cleaning.model.decode(latents))
    assert not np.array_equal(frames, load(FAMILIES["latte-plain"]).model.decode(latents))
