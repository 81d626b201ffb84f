"""What only Latte has: captions that are cleaned."""

import pytest
import torch

from lemica_backend.errors import InvalidRequestError
from tests.tiny.families import FAMILIES
from tests.tiny.family import assert_close

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
