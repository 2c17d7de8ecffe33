"""Completion as a person meets it: `^` is the caret."""

import pytest

import kfl


def complete(marked, **more):
    caret = marked.index("^")
    return kfl.complete(marked.replace("^", ""), caret, **more)


def inserts(marked, **more):
    return [candidate.insert for candidate in complete(marked, **more).candidates]


@pytest.mark.parametrize(
    ("marked", "first"),
    [
        ("^", ["http", "dns", "response.status"]),
        ("ht^", ["http", "http2"]),
        ("response.st^", ["status", "statusText"]),
        ("http and resp^", ["response.status", "response"]),
        ("(http or d^", ["dns"]),
        ("not ^", ["http"]),
        ('request.headers["^', ['"Host"', '"User-Agent"']),
        ("request.headers['u^", ["'User-Agent'"]),
        ("request.headers[^", ['"Host"']),
        ('request.method == "^', ['"GET"', '"POST"']),
        ('"GET" == request.m^', ["method"]),
        ('method == "^', ['"GET"']),
        ('request.method in ["GET", "P^', ['"POST"', '"PUT"', '"PATCH"']),
        ('request.method.startsWith("^', ['"GET"']),
        ('proto.name == "^', ['"http"']),
        ("response.status == ^", ["200"]),
        ("response.status >= 5^", ["500", "501"]),
        ("http ^", ["and", "or"]),
        ("response.status ^", ["and", "or", "in", "=="]),
        ("http an^", ["and"]),
        ("request.path =^", ["=="]),
        ("request.path !^", ["!="]),
        ("http |^", ["||"]),
        ("request.path.^", ["contains(", "startsWith(", "matches("]),
        ("response..na^", ["name"]),
        ("request.questions.*.^", ["name", "type", "class"]),
        ("request.questions[0].ty^", ["type"]),
        ("src.pod.metadata.^", ["name", "namespace", "labels"]),
        ("stat^", ["status_code", "response.status"]),
        ("elapsed_^", ["elapsed_time"]),
        ("now^", ["now()"]),
        ("limit(^", ["10"]),
        ('timestamp > timestamp("^', ['"2026-03-14T22:00:00Z"']),
        ('redact("request.bo^', ['"request.body"']),
        ("http = and request.m^", ["method"]),  # wrong before the caret
        ("dns and and src.i^", ["ip"]),
        (") or http and dst.po^", ["port", "pod"]),
    ],
)
def test_offers_first(marked, first):
    assert inserts(marked)[: len(first)] == first


@pytest.mark.parametrize(
    ("marked", "never"),
    [
        ("response.status == 500 ^", "=="),  # already compared
        ("http ^", "=="),  # a word is true or false
        ("request.path ^", "<"),  # a text is not ordered
        ("http ^", ")"),
        ('request.method == "^', "http"),
        ("request.method == ^", "dns"),
        ("response.status.^", "json()"),
    ],
)
def test_does_not_offer(marked, never):
    assert inserts(marked)
    assert never not in inserts(marked)


@pytest.mark.parametrize("marked", ["http # ^", "http // or ^", 'x == r"^', '"a^', "http @^"])
def test_offers_nothing(marked):
    assert inserts(marked) == []


@pytest.mark.parametrize(
    ("marked", "after"),
    [
        ("requ^est.path == 5", "request.path == 5"),
        ("request.pa^ == 5", "request.path == 5"),
        ('record("de^") and http', 'record("demo") and http'),
        ('record("de^ and x == "y"', 'record("demo" and x == "y"'),
        ("record('de^", "record('demo'"),
        ('rec^("demo")', 'record("demo")'),
        ("request.path.starts^With(", "request.path.startsWith("),
        ("request.path =^= 5", "request.path == 5"),
    ],
)
def test_replaces_what_is_being_written(marked, after):
    text = marked.replace("^", "")
    found = complete(marked, recordings=["demo"])
    texts = [text[: found.start] + each.insert + text[found.end :] for each in found.candidates]
    assert after in texts


def test_names_of_recordings_are_quoted():
    names = ["demo", 'odd"one', "it's"]
    assert inserts("record(^", recordings=names) == ['"demo"', '"odd\\"one"', '"it\'s"']
    assert inserts("record('^", recordings=names) == ["'demo'", "'odd\"one'", "'it\\'s'"]
    assert {each.kind for each in complete("record(^", recordings=names).candidates} == {
        "recording"
    }


def test_a_candidate_says_what_it_is():
    found = {each.insert: each for each in complete("^", macros={"bad": "http"}).candidates}
    assert found["response.status"].kind == "field"
    assert found["response.status"].type == "number"
    assert "HTTP status" in found["response.status"].help
    assert "only of http" in found["status_code"].help
    assert found["http"].kind == "word"
    assert found["bad"] == kfl.Candidate("bad", "word", "bool", "http")
    assert found["size("].kind == "function"
    assert found["not"].kind == "keyword"
    assert complete("http a^").candidates[0].help.startswith("both sides are true")


def test_fields_of_the_protocol_that_is_named_come_first():
    named = inserts("redis and request.^")
    assert named.index("command") < named.index("exchange")
    assert named.index("key") < named.index("url")


def test_a_bracket_is_closed_only_where_one_is_open():
    assert ")" in inserts("(http ^")
    assert "]" in inserts("src.port in [1, 2 ^")
    assert "," in inserts("src.port in [1, 2 ^")
    assert ":" in inserts("http ? dns ^")
