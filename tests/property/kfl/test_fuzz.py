"""A sample of the fuzz; KFL_FUZZ=1000000 asks for more of it."""

import os
import random

import pytest

from tests.property.kfl import fuzz

COUNT = int(os.environ.get("KFL_FUZZ", "4000"))


@pytest.mark.timeout(0 if COUNT > 10_000 else 120)
def test_any_text_is_a_filter_or_an_error():
    seed = 7 if "CI" in os.environ else random.randrange(2**32)
    fuzz.main(COUNT, seed)
