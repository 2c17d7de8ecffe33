import pytest

from kfl import ast, meant
from kfl.parse import parse
from kfl.show import show


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("TRUE", "Write `true`."),
        ("None", "Write `nil`."),
        ("contains", "Write x.contains(...)."),
        ("redis.command", "Did you mean redis_command?"),
        ("status", "Did you mean response.status?"),
        ("http.status", "Did you mean response.status?"),
        ("http.method", "Did you mean method?"),
        ("htpp", "Did you mean http"),
        ("mymacr", "Did you mean mymacro?"),
        ("dst.qqqqqqqqqqqq", "There are dst.ip"),
        ("zzzzzz", 'Put text into quotes: "zzzzzz".'),
    ],
)
def test_what_a_name_may_have_been(word, sentence):
    assert meant.name(word, ["mymacro"]).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        *(("GET", "GET"), ("kube-dns", "kube-dns"), ("a-b-2", "a-b-2"), ("cart.shop", "cart.shop")),
        *(("http", ""), ("size", ""), ("None", ""), ("src.bogus", ""), ("request.x", "")),
        *(("a + b", ""), ("a.*", ""), ('"a"', ""), ("a()", "")),
    ],
)
def test_words_that_need_quotes(text, word):
    assert meant.bare_text(parse(text).tree, lambda word: word in ("http", "dns")) == word


def test_names_with_hyphens_stand_in_brackets():
    found = meant.hyphened(parse("request.headers.X-Forwarded-For").tree, lambda _: False)
    assert isinstance(found, ast.Path)
    assert show(found) == 'request.headers["X-Forwarded-For"]'
    assert meant.hyphened(parse("requestSize - responseSize").tree, lambda _: True) is None
