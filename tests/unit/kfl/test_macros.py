import itertools

import pytest

import kfl
from kfl import macros

WORDS = {
    "https": "tls and (http or http2)",
    "failed": "https and status_code >= 500",
    "secret": "request.body",
    "slow": "elapsed_time > 1000 or elapsedTime > 1",
}

ENTRIES = list(itertools.product(("http", "dns", ""), (True, False), (200, 500), (1, 5000)))


def test_good_words_have_no_problems():
    assert macros.problems(WORDS) == []
    assert macros.problems({}) == []


@pytest.mark.parametrize(
    ("wrong", "sentences"),
    [
        ({"http": "dns"}, ["The word `http` exists already."]),
        ({"limit": "dns"}, ["The word `limit` exists already."]),
        ({"a b": "dns"}, ["`a b` cannot be a word"]),
        ({"a": "dns and"}, ["In the word `a`: line 1, column 8: The filter ends too early."]),
        ({"a": "nope or nix"}, ["`a`: line 1, column 1: `nope`", "`a`: line 1, column 9: `nix`"]),
        ({"a": "dns", "b": "a and nope"}, ["In the word `b`: line 1, column 7: `nope`"]),
        ({"a": "nope", "b": "a", "c": "b"}, ["In the word `a`: line 1, column 1: `nope`"]),
        ({"a": "b", "b": "a", "c": "a"}, ["`a` is made from itself", "`b` is made from itself"]),
        ({"a": "a"}, ["The word `a` is made from itself."]),
        ({"a": 'path.matches("(")'}, ["In the word `a`: line 1, column 14: The regex"]),
        ({f"w{n}": "dns" for n in range(300)}, ["There are 300 words; at most 256"]),
    ],
)
def test_all_that_is_wrong_is_said(wrong, sentences):
    found = macros.problems(wrong)
    assert len(found) == len(sentences)
    for sentence, part in zip(found, sentences, strict=True):
        assert part in sentence


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("http  and dns", "http  and dns"),  # as it was written
        ("https", "tls and (http or http2)"),
        ("not https", "not (tls and (http or http2))"),
        ("dns or failed", "dns or (tls and (http or http2) and status_code >= 500)"),
        ("dns or slow", "dns or elapsed_time > 1000 or elapsedTime > 1"),
        ("udp and (tcp and dns)", "udp and (tcp and dns)"),
        ("slow and dns", "(elapsed_time > 1000 or elapsedTime > 1) and dns"),
        ('redact("secret", "request.path")', 'redact("request.body", "request.path")'),
        ('secret.contains("x")', 'request.body.contains("x")'),
        ('"https" == request.path', '"https" == request.path'),
        ("request.https == 1", "request.https == 1"),
    ],
)
def test_words_are_put_in(text, expanded):
    assert macros.expand(text, WORDS) == expanded


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "text", ["{}", "not {}", "dns or {} and tls", "({} ? dns : tls) or udp", "[{}] == [true]"]
)
def test_the_meaning_stays(word, text):
    text = text.format(word)
    with_words, without = kfl.compile(text, WORDS), kfl.compile(macros.expand(text, WORDS))
    for name, tls, status, elapsed in ENTRIES:
        entry = {"protocol": {"name": name}, "tls": tls, "response": {"status": status}}
        entry |= {"elapsedTimeUs": elapsed, "request": {"body": name}}
        assert with_words.matches(entry) is without.matches(entry)


def test_what_is_too_large_with_its_words_is_refused():
    wide = {"wide": " or ".join([f"dst.port == {n}" for n in range(500)])}
    with pytest.raises(kfl.KflError, match="With the words of operators put in"):
        macros.expand(" or ".join(["wide"] * 3), wide)
    with pytest.raises(kfl.KflError, match="too large"):
        macros.expand(" or ".join(["wide"] * 30), wide)


def test_explanations_show_what_words_stand_for():
    assert "status_code >= 500" in macros.explain("dns or failed", WORDS)
    wide = {"wide": " or ".join([f"dst.port == {n}" for n in range(500)])}
    assert "wide" in macros.explain(" or ".join(["wide"] * 3), wide)
    with pytest.raises(kfl.KflError):
        macros.explain("nope", WORDS)
