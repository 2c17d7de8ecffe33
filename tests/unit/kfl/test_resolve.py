import pytest

import kfl


def error_of(text, macros=None):
    with pytest.raises(kfl.KflError) as caught:
        kfl.compile(text, macros or {})
    return caught.value


@pytest.mark.parametrize(
    ("text", "place", "message", "suggestion"),
    [
        ("htpp", (1, 1), "`htpp` is not a word", "http"),
        ("http and\n  src.prot == 1", (2, 3), "no field `src.prot`", "src.port"),
        ("response.status == 1 and foo", (1, 26), "`foo` is not a word", ""),
        ("staus_code == 1", (1, 1), "`staus_code`", "status_code"),
        ("HTTP", (1, 1), "`HTTP`", "http"),
        ("path.startswith('x')", (1, 6), "`startswith` is not a function", "startsWith"),
        ("sise(path)", (1, 1), "`sise` is not a function", "size"),
        ("now == 1", (1, 1), "`now` is a function", "now(...)"),
        ("json(path)", (1, 1), "`json` is not a function of KFL", "x.json(...)"),
        ("path.now()", (1, 6), "is not a function of a value", "now(x)"),
        ("size()", (1, 1), "size() has 0 arguments", "size(x)"),
        ("map_get(request.headers, 'a')", (1, 1), "map_get() has 2 arguments", "default"),
        ("limit(0)", (1, 7), "whole number from 1", ""),
        ("limit(true)", (1, 7), "whole number from 1", ""),
        ("limit(requestSize)", (1, 7), "whole number from 1", ""),
        ("record(path)", (1, 8), "takes a text that is written", ""),
        ("record('')", (1, 8), "1 to 253 characters", ""),
        ("hours(path)", (1, 7), "takes a number that is written", ""),
        ("years(9999999)", (1, 7), "no such time", ""),
        ("timestamp > timestamp('yesterday')", (1, 23), "RFC 3339", ""),
        ("timestamp > timestamp('2026-02-30T00:00:00Z')", (1, 23), "does not exist", ""),
        ("timestamp > datetime('2026-02-03')", (1, 22), "10/19/2021", ""),
        ("elapsedTime > duration('5 minutes')", (1, 24), "not a duration", ""),
        ("path == r'('", (1, 9), "regex is not valid", "RE2"),
        ("path.matches('(')", (1, 14), "regex is not valid", "RE2"),
        ("path.matches(url)", (1, 14), "written in the filter", ""),
        ("path == r'" + "a" * 1001 + "'", (1, 9), "at most 1000", "in [...]"),
        ("r'a'", (1, 1), "A regex alone", "Compare it"),
        ("path > r'a'", (1, 8), "cannot stand beside `>`", "=="),
        ("path in 'GET'", (1, 9), "a list or a map", "contains"),
        ("path.contains(5)", (1, 15), "takes a text", "quotes"),
        ("1 / 0 == 1", (1, 1), "cannot be computed", ""),
        ("redact('bogus.path')", (1, 8), "`bogus`", ""),
        ("redact('a b')", (1, 8), "is not a path", ""),
        ("redact()", (1, 1), "redact() has 0 arguments", ""),
        ("conn.state", (1, 1), "has nothing below it", "conn_state"),
        ("src.ip.x == 1", (1, 1), "no field `src.ip.x`", "src.ip"),
        ('src["pod.name"] == 1', (1, 1), "no field", ""),
        ("src.bogus", (1, 1), "no field `src.bogus`", ""),
        (
            'request.headers.X-Forwarded-For == "a"',
            (1, 1),
            "stands in brackets",
            'request.headers["X-Forwarded-For"]',
        ),
        ('http.request.method == "GET"', (1, 1), "Wireshark", "request.method"),
        ("http and tcp.port == 80", (1, 10), "Wireshark", "src.port"),
        ("ip.addr == 10.0.0.1", (1, 1), "Wireshark", "src.ip"),
        ("tcp port 80", (1, 1), "capture filter", "dst.port"),
        ("host 10.0.0.1 and port 53", (1, 1), "capture filter", ""),
        ("src host 10.0.0.1", (1, 1), "capture filter", ""),
    ],
)
def test_errors_name_the_place_and_what_would_be_right(text, place, message, suggestion):
    error = error_of(text)
    assert message in error.message
    assert suggestion in error.suggestion
    assert (error.line, error.column) == place
    assert error.message in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "request.whatever.one.likes == 1",
        "response['x'].* == 1",
        "src.labels['app.kubernetes.io/name'] == 'x'",
        "src.pod.labels.anything",
        "error.type == 'gap'",
        "src.*",
        "request.body.json().a.b[0]..c",
        '"host tcp port" == request.path',
    ],
)
def test_free_paths_are_not_checked(text):
    assert not [problem for problem in kfl.check(text) if problem.is_error]


def test_check_shows_all_problems_in_order():
    problems = kfl.check("htpp and foo.bar == 1 or src.prot == 2")
    assert [problem.is_error for problem in problems].count(True) == 3
    assert [problem.column for problem in problems] == sorted(p.column for p in problems)
    assert any("beside each other" in problem.message for problem in problems)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("http and grpc or tls", "beside each other"),
        ("not http == true", "binds tighter"),
        ("record == 'a'", "does not choose which recordings"),
        ("timestamp > now() - hours(1)", "an hour from now"),
        ("path > 'abc'", "never true"),
        ("response.statuss == 5", "No protocol is known to have `response.statuss`"),
    ],
)
def test_doubtful_filters_get_a_warning(text, part):
    warnings = kfl.compile(text).warnings
    assert [part in warning.message for warning in warnings] == [True]
    assert kfl.check(text) == warnings


# ------------------------------------------------------------------------------ operators' words


def test_operators_can_add_words():
    macros = {"https": "tls and (http or http2)", "bad_https": "https and status_code >= 500"}
    found = kfl.compile("bad_https", macros)
    entry = {"tls": True, "protocol": {"name": "http"}, "response": {"status": 500}}
    assert found.matches(entry)
    assert not found.matches({**entry, "tls": False})
    # A word of the language, not text that is put in: nothing can come apart.
    assert kfl.compile("not either", {"either": "dns or http"}).matches({}) is True


@pytest.mark.parametrize(
    ("text", "macros", "message"),
    [
        ("a", {"a": "b", "b": "a"}, "made from itself"),
        ("a", {"a": "http and"}, "In the word `a`, line 1, column 9: The filter ends"),
        ("a", {"a": "b", "b": "dns and nope == 1"}, "In the word `b`, line 1, column 9: `nope`"),
        ("http", {"limit": "dns"}, "exists already"),
        ("http", {"http": "dns"}, "exists already"),
        ("http", {"path": "dns"}, "exists already"),
        ("http", {"a-b": "dns"}, "cannot be a word"),
        ("a.b", {"a": "dns"}, "nothing below it"),
        ("htps", {"https": "tls"}, "`htps`"),
    ],
)
def test_wrong_words_of_operators_are_named(text, macros, message):
    assert message in error_of(text, macros).message


def test_what_is_wrong_in_a_word_points_to_where_it_is_used():
    error = error_of("http and\n  odd", {"odd": "dns and tls and nope"})
    assert (error.line, error.column) == (2, 3)


def test_words_cannot_grow_without_end():
    macros = {"w0": "http and dns"}
    for number in range(1, 15):
        previous = f"w{number - 1}"
        macros[f"w{number}"] = " and ".join([f"({previous} or {previous})"] * 3)
    assert "too large" in error_of("w14", macros).message
