"""What holds for every text and every caret: a candidate fits the grammar, and nothing raises."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from lark.exceptions import UnexpectedInput

import kfl
from kfl.parse import MAX_LENGTH, RESERVED, parse
from kfl.tokens import _lark

ENOUGH = settings(max_examples=300, deadline=None)

PIECES = st.sampled_from(
    r"""http dns tls and or not in || && ! == != < <= > >= + - * / % ( ) [ ] , ? : . .. .* true nil
    request response request.path response.status request.headers src.pod.name dns_questions mine
    size( now() record( limit( redact( hours( matches( "GET" 'it' r"x" 5 3.14 "un 'un r"un = & | ~ @
    # // é status_code request.questions startsWith( map_get( \\ 500 é""".split()  # noqa: SIM905, a list would be a page long
)
TEXTS = st.lists(st.tuples(PIECES, st.sampled_from(["", " ", " ", "\n"])), max_size=14).map(
    lambda parts: "".join(piece + space for piece, space in parts)
)
MACROS = {"mine": "http and response.status == 500"}
RECORDINGS = ["demo", 'odd"name', "it's", "new\nline"]


def is_viable(prefix: str) -> bool:
    """Whether the grammar itself reads all of this text; it may end too early."""
    try:
        found = _lark().parse_interactive(prefix).exhaust_lexer()
    except UnexpectedInput:
        return False
    before = ["", *(token.type for token in found)]
    # `or` where a condition should begin is a NAME for the grammar, and refused by the parser.
    return not any(
        token.type == "NAME" and str(token) in RESERVED and last not in ("DOT", "DEEP")
        for token, last in zip(found, before, strict=False)
    )


@ENOUGH
@given(TEXTS, st.data())
def test_every_candidate_continues_what_the_grammar_has_read(text, data):
    caret = data.draw(st.integers(0, len(text)))
    found = kfl.complete(text, caret, recordings=RECORDINGS, macros=MACROS)
    assert 0 <= found.start <= caret <= found.end <= len(text)
    if not is_viable(text[: found.start]):
        return
    for candidate in found.candidates:
        written = text[: found.start] + candidate.insert
        assert is_viable(written), (written, candidate)


@ENOUGH
@given(TEXTS | st.text(max_size=60), st.integers(-3, 80))
def test_no_text_and_no_caret_raises(text, caret):
    found = kfl.complete(text, caret, recordings=RECORDINGS)
    assert 0 <= found.start <= found.end <= len(text)
    assert len({candidate.insert for candidate in found.candidates}) == len(found.candidates)


@ENOUGH
@given(TEXTS | st.text(max_size=60))
def test_tokens_cover_everything_but_white_space(text):
    position = 0
    for token in kfl.tokens(text):
        assert text[position : token.start].strip(" \t\r\n") == ""
        assert token.start < token.end
        position = token.end
    assert text[position:].strip(" \t\r\n") == ""


@ENOUGH
@given(TEXTS)
def test_tokens_are_the_grammars(text):
    try:
        parse(text)
    except kfl.KflError:
        return
    ours = [(each.start, each.end) for each in kfl.tokens(text) if each.kind != "comment"]
    assert ours == [
        (token.start_pos, token.end_pos)
        for token in _lark().parse_interactive(text).exhaust_lexer()
    ]


LONG = [
    *(
        "(",
        "a ",
        ") ",
        "a and (b ",
        "[1,",
        "x.",
        "request.path.",
        '"',
        "a..b ",
        "a ? ",
        "f(",
        "'\\",
    ),
    *(
        "= ",
        "!",
        "-",
        "a or b and ",
        "9",
        "9.",
        "r'",
        "a[",
        "a[0]",
        "é",
        "#",
        "# \n",
        ".*",
        '"a"',
        ",",
    ),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", LONG)
def test_the_longest_texts_are_read_in_a_moment(piece):
    text = (piece * MAX_LENGTH)[:MAX_LENGTH]
    assert len(kfl.tokens(text)) <= MAX_LENGTH
    kfl.complete(text, len(text))
    assert kfl.tokens(text + "http")[-1] == kfl.Token(MAX_LENGTH, MAX_LENGTH + 4, "unknown")
    assert kfl.complete(text + "http", MAX_LENGTH + 4).candidates == ()
