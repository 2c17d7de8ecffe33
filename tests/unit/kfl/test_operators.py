"""The table of operators against the grammar and the parser."""

from itertools import pairwise

import pytest

import kfl
from kfl.fields import CATALOGUE
from kfl.functions import EXAMPLES, FITS, FUNCTIONS, METHODS
from kfl.operators import ALL, LEVELS
from kfl.parse import parse
from kfl.tokens import _patterns, terminal_of
from kfl.usual import ARGUMENTS, HEADERS, OFTEN, VALUES

JOINS = [[spelling for each in level for spelling in each.spellings] for level in LEVELS[1:6]]

NO_OPERATORS = {
    *("NAME", "STRING", "INTEGER", "DECIMAL", "REGEX", "NIL", "TRUE", "FALSE", "COMMENT"),
    *("LPAR", "RPAR", "RSQB", "COMMA"),
}


@pytest.mark.parametrize(("looser", "tighter"), list(pairwise(JOINS)))
def test_levels_bind_as_the_grammar_says(looser, tighter):
    for loose in looser:
        for tight in tighter:
            text = f"a {loose} b {tight} c"
            assert parse(text).tree == parse(f"a {loose} (b {tight} c)").tree, text


def test_every_operator_of_the_grammar_has_help():
    terminals = {terminal_of(spelling) for each in ALL for spelling in each.spellings}
    known = {name for name in _patterns() if not name.startswith("__IGNORE")}
    assert terminals | {"NOT", "BANG"} == known - NO_OPERATORS


@pytest.mark.parametrize("example", [*(each.example for each in ALL), *EXAMPLES.values()])
def test_every_example_compiles(example):
    assert kfl.check(example) == []


def test_the_tables_name_what_there_is():
    assert set(EXAMPLES) == {*FUNCTIONS, *METHODS}
    assert set(FITS) == set(METHODS)
    assert set(ARGUMENTS) <= set(FUNCTIONS)
    assert {field.type for field in CATALOGUE} <= {"text", "number", "bool", "list", "map", "any"}


@pytest.mark.parametrize("path", [*VALUES, *(f"{side}.headers" for side in HEADERS)])
def test_usual_values_are_of_known_fields(path):
    assert kfl.check(f"{path} == nil") == []


def test_names_written_often_are_offered_somewhere():
    offered = {
        candidate.insert.rstrip("()")
        for text in ("", "http ", "src.port ", "request.path.", "src.", "request.", "response.")
        for candidate in kfl.complete(text, len(text)).candidates
    }
    assert set(OFTEN) <= offered
