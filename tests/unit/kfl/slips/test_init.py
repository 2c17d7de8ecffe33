import time

import pytest

import kfl
from kfl import slips


def error_of(text):
    problems = [problem for problem in kfl.check(text) if problem.is_error]
    assert problems, text
    return problems[0]


@pytest.mark.parametrize(
    ("text", "place", "found", "right"),
    [
        # What is a call here and an operator elsewhere.
        ('request.path contains "x"', 14, "`contains`", 'Write request.path.contains("x").'),
        ('http and path startswith "/a"', 15, "`startswith`", 'Write path.startsWith("/a").'),
        ('url matches "^/a"', 5, "`matches`", 'Write url.matches("^/a").'),
        ('request.headers["A"] contains x', 22, "", 'request.headers["A"].contains("x")'),
        ('request.path.contains "x"', 14, "without parentheses", 'contains("x")'),
        # Signs of equality.
        ("response.status = 500", 17, "`=`", "Write response.status == 500"),
        ("request.method = GET", 16, "`=`", 'Write request.method == "GET"'),
        ('path =~ "^/api"', 6, "`=~`", 'Write path == r"^/api".'),
        ("path =~ /^api/", 6, "`=~`", 'Write path == r"^api".'),
        ('path !~ "^/api"', 6, "`!~`", 'Write path != r"^/api".'),
        ("response.status === 500", 17, "`===`", "Write response.status == 500."),
        ("response.status <> 500", 17, "`<>`", "Write response.status != 500."),
        ("response.status => 500", 17, "`=>`", "Write response.status >= 500."),
        ("response.status ≥ 500", 17, "`≥`", "Write response.status >= 500."),
        ("method: GET", 7, "`:`", 'Write method == "GET".'),
        ("response.status is 500", 17, "`is`", "Write response.status == 500."),
        # Joining.
        ("http & dns", 6, "`&`", "`and`"),
        ("http | dns", 6, "`|`", "`or`"),
        ("http AND dns", 6, "`AND`", "Write `and`"),
        ("http Or dns", 6, "`Or`", "Write `or`"),
        ("NOT http", 1, "`NOT`", "Write `not`"),
        ("http and NOT dns", 10, "`NOT`", "Write `not`"),
        ("http dns", 6, "`dns`", "Join conditions"),
        ("http and", 9, "ends too early", "after `and`"),
        ("http and not", 13, "ends too early", "after `not`"),
        ("http and or dns", 10, "where a condition is needed", "missing"),
        # Numbers.
        ("response.status >= 5xx", 20, "`5xx`", "Write response.status >= 500."),
        ("response.status == 5xx", 20, "", ">= 500 and response.status < 600."),
        ("response.status != 4XX", 20, "", "(response.status < 400 or response.status >= 500)"),
        ("response.status > 4xx", 19, "", "Write response.status >= 500."),
        ("response.status < 4xx", 19, "", "Write response.status < 400."),
        ("response.status <= 4xx", 20, "", "Write response.status < 500."),
        ("elapsedTime > 5ms", 15, "`5ms`", 'duration("5ms")'),
        ("elapsedTime > 1h30m", 15, "`1h30m`", 'duration("1h30m")'),
        ("responseSize > 10kb", 16, "`10kb`", "10240"),
        ("responseSize > 1_000", 16, "`1_000`", "1000"),
        ("responseSize > 0x1F", 16, "`0x1F`", "without letters"),
        ("responseSize > .5", 16, "`.5`", "0.5"),
        ("responseSize > +5", 16, "`+5`", "Write 5."),
        ("response.status==500andhttp", 21, "`and`", "space"),
        # Texts.
        ("request.method == GET", 19, "`GET`", '"GET"'),
        ("request.method in [GET, HEAD]", 20, "`GET`", '"GET"'),
        ("src.name == kube-dns", 13, "`kube-dns`", '"kube-dns"'),
        ("src.dns == cart.shop", 12, "`cart.shop`", '"cart.shop"'),
        ("request.path == /api/cart", 17, "`/api/cart`", '"/api/cart"'),
        ("request.url == http://x/y", 16, "`http://x/y`", '"http://x/y"'),
        ("src.ip == 10.0.0.1", 11, "`10.0.0.1`", '"10.0.0.1"'),
        ("src.ip in [10.0.0.1, 10.0.0.2]", 12, "`10.0.0.1`", '"10.0.0.1"'),
        ("src.ip == fe80::1", 11, "`fe80::1`", '"fe80::1"'),
        ("timestamp > 2026-03-14T22:00:00Z", 13, "", 'timestamp("2026-03-14T22:00:00Z")'),
        ('path == "abc', 9, "does not end", 'Close it with "'),
        ("path == 'abc\\'", 9, "does not end", "Close it with '"),
        ("path == \u201cabc\u201d", 9, "\u201c", 'between two "'),
        ("path == \u2018abc\u2019", 9, "\u2018", "between two '"),
        ("http\u00a0and dns", 5, "U+00A0", "plain space"),
        ("http\u200b and dns", 5, "U+200B", "Take it out"),
        ("http \x00", 6, "U+0000", "Take it out"),
        # Steps.
        ("request.headers[User-Agent]", 17, "`User-Agent`", '["User-Agent"]'),
        ('request.headers."User-Agent"', 17, "", '["User-Agent"]'),
        ("request.pathSegments[-1]", 22, "`-1`", "from 0"),
        ("request.pathSegments[*]", 22, "`[*]`", "`.*`"),
        ("request.größe == 1", 8, "`.größe`", '["größe"]'),
        ("request.ключ == 1", 8, "`.ключ`", '["ключ"]'),
        ("request.path == größe", 17, "`größe`", '"größe"'),
        ("request.pathSegments.0", 22, "`.0`", "[0]"),
        # SQL.
        ('path LIKE "%/api/%"', 6, "`LIKE`", 'path.contains("/api/")'),
        ('path like "/api/%"', 6, "`like`", 'path.startsWith("/api/")'),
        ('path LIKE "%.js"', 6, "", 'path.endsWith(".js")'),
        ('path NOT LIKE "%x"', 6, "`NOT LIKE`", 'not (path.endsWith("x"))'),
        ('path LIKE "a_b%"', 6, "", 'path == r"^a.b.*$"'),
        ('method IN ("GET", "PUT")', 8, "`IN (...)`", 'method in ["GET", "PUT"]'),
        ('method in ("GET", "PUT")', 11, "square brackets", 'in ["GET", "PUT"]'),
        ('method in {"GET"}', 11, "`{`", "square brackets"),
        ('method not in ["GET"]', 8, "`not in`", 'not (method in ["GET"])'),
        ("status_code between 400 and 499", 13, "", "status_code >= 400 and status_code <= 499"),
        ("error is null", 7, "`is null`", "error == nil"),
        ("error IS NOT NULL", 7, "`IS NOT NULL`", "error != nil"),
        ("WHERE http", 1, "`WHERE`", "alone"),
        ("http;", 5, "`;`", "Leave it out"),
        ("error == NULL", 10, "`NULL`", "`null`"),
        ("error == None", 10, "`None`", "`nil`"),
        ("tls == TRUE", 8, "`TRUE`", "`true`"),
        # Brackets.
        ("(http and dns", 1, "`(` is not closed", "`)`"),
        ("http and not(dns", 13, "`(` is not closed", "`)`"),
        ("method in ['a', 'b'", 11, "`[` is not closed", "`]`"),
        ("http and dns)", 13, "`)` closes nothing", "Take it out"),
        ("http and (dns or [1)", 20, "`)` closes nothing", ""),
        # Names.
        ("status == 500", 1, "`status`", "response.status"),
        ("$path", 1, "`$`", "alone"),
        ("HTTP", 1, "`HTTP`", "http"),
    ],
)
def test_a_slip_is_named_with_what_would_be_right(text, place, found, right):
    error = error_of(text)
    assert found in error.message
    assert right in error.suggestion
    assert (error.line, error.column) == (1, place)


def test_the_place_is_right_on_later_lines():
    error = error_of('http # a "comment"\n  and request.path contains "x"')
    assert (error.line, error.column) == (2, 20)


def test_what_is_in_texts_and_comments_is_no_slip():
    assert not kfl.check('request.path == "a = b AND (c" # ) = “\nand http // [')


@pytest.mark.parametrize("part", ['\\"', '"', "'\"", "a[", "(", "[", "=", "!", "x.", "5xx ", "`"])
def test_the_longest_filters_fail_soon(part):
    text = 'http and "' + part * 8_000
    begin = time.process_time()
    assert kfl.check(text[:16_384])
    slips.slip_at(text[:16_384], 12)
    assert time.process_time() - begin < 5  # processor time; quadratic ones take minutes
