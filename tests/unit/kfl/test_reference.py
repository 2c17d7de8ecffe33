"""docs/kfl.md: as the tables are now, and with examples that work."""

import re
from pathlib import Path

import pytest

import kfl
from kfl.fields import NAMES
from kfl.functions import FUNCTIONS, METHODS
from kfl.operators import ALL
from kfl.parse import MAX_DEPTH, MAX_LENGTH
from kfl.reference import reference
from kfl.words import WORDS

TEXT = reference()
PAGE = Path(__file__).parents[3] / "docs" / "kfl.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == TEXT, "docs/kfl.md is stale: run make docs"


def fenced():
    for block in re.findall(r"```kfl\n(.*?)```", TEXT, re.DOTALL):
        yield from block.strip().split("\n")


def in_tables():
    """The last cell of each row, in tables whose last column is called example."""
    is_example = False
    for line in TEXT.split("\n"):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if not line.startswith("|"):
            is_example = False
        elif cells[-2] == "example":
            is_example = True
        elif is_example and not set(cells[-2]) <= {"-"}:
            yield cells[-2].replace("\\|", "|").removeprefix("`").removesuffix("`")


@pytest.mark.parametrize("example", [*fenced(), *in_tables()])
def test_every_example_compiles(example):
    assert kfl.compile(example)


def test_there_are_examples():
    assert len(list(fenced())) > 20
    assert len(list(in_tables())) > 40


@pytest.mark.parametrize(
    "name",
    [
        *NAMES,
        *WORDS,
        *(spelling.replace("|", "\\|") for each in ALL for spelling in each.spellings),
    ],
)
def test_every_name_is_on_the_page(name):
    assert f"`{name}`" in TEXT or f"`{name} " in TEXT


@pytest.mark.parametrize("function", [*FUNCTIONS, *METHODS])
def test_every_function_is_on_the_page(function):
    assert re.search(rf"`(\w\.)?{function}\(", TEXT)


@pytest.mark.parametrize("limit", [MAX_LENGTH, MAX_DEPTH])
def test_limits_are_on_the_page(limit):
    assert f"{limit:,}" in TEXT
