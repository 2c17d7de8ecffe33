import pytest

import kfl
from kfl.doubts import MAX_PAIRED


def doubts(text):
    found = kfl.check(text)
    assert not any(problem.is_error for problem in found), found
    return found


@pytest.mark.parametrize(
    ("text", "column", "why", "right"),
    [
        # A value that its field cannot have.
        ('status_code == "ok"', 1, "`status_code` is a number", "a number"),
        ('http and response.status == "ok"', 10, "of `http`, `response.status` is a number", ""),
        ('dst.port == "http"', 1, "`dst.port` is a number", ""),
        ("request.method == true", 1, "`request.method` is a text", ""),
        ('tls == "true"', 1, "`tls` is true or false", "Write tls."),
        ("tls == 1", 1, "`tls` is true or false", "Write tls."),
        ("dst.port > 70000", 1, "from 0 to 65535", "from 0 to 65535"),
        ("70000 < dst.port", 1, "from 0 to 65535", "from 0 to 65535"),
        ("dst.port == 70000", 1, "from 0 to 65535", ""),
        ("dst.port in [70000, -1]", 1, "from 0 to 65535", ""),
        ("requestSize < 0", 1, "0 or more", ""),
        ("status_code == 5000", 1, "from 0 to 999", ""),
        ("http and size(response.status) == 3", 10, "`response.status`", ""),
        ('"x" in request.path', 1, "`in` looks into lists and maps", "request.path.contains"),
        ("request.path in []", 1, "the list is empty", "between its brackets"),
        ("1 == 2", 1, "constants", "Name a field"),
        ('protocol == "http"', 1, "`protocol` is a map", "Write protocol.name"),
        ('src == "10.0.0.1"', 1, "`src` is a map", "Write src.ip"),
        ('request.headers.contains("a")', 17, "is a map", 'request.headers["key"]'),
        ("request.headers > 5", 1, "is a map", ""),
        # Orders of what is no number.
        ('request.path > "abc"', 1, '"abc" is none', "a number"),
        ("request.path > nil", 1, "nil is none", ""),
        ('request.path < ["a", true]', 1, "this list is none", ""),
        ('timestamp > "2026-03-14T22:00:00Z"', 1, "", 'timestamp("2026-03-14T22:00:00Z")'),
        ('timestamp > "10/19/2021, 6:29:02 PM"', 1, "", 'datetime("10/19/2021, 6:29:02 PM")'),
        ('elapsedTime > "5ms"', 1, "", 'duration("5ms")'),
        # Two conditions on one value.
        ("response.status == 500 and response.status == 404", 28, "exclude each other", "`or`"),
        ("status_code == 500 and response.status == 404", 24, "exclude each other", "`or`"),
        ('method == "GET" and method == "POST"', 21, "exclude each other", "`or`"),
        ('method in ["GET", "PUT"] and method == "POST"', 30, "exclude each other", "`or`"),
        ('request.method == "GET" and not request.method.contains("E")', 29, "exclude", ""),
        ('path.startsWith("/a") and path == "/b"', 27, "exclude each other", ""),
        ("response.status > 500 and response.status < 400", 27, "exclude each other", ""),
        ("src.port > 80 and src.port < 80", 19, "exclude each other", ""),
        ("src.port > 80 and src.port == 80", 19, "exclude each other", ""),
        ("src.port == 80 and (http and src.port == 81)", 21, "exclude each other", ""),
        ("timestamp > now() and timestamp < hours(-1)", 23, "exclude each other", ""),
        ("request.body and not request.body", 18, "exclude each other", "Take one of them out"),
        ('record("a") and record("b")', 17, "exclude each other", "`or`"),
        # Protocols.
        ("dns and http", 9, "exclude each other", "`or`"),
        ("tcp and http and udp", 18, "`tcp` and `udp`", "`or`"),
        ("grpc and ws", 10, "exclude each other", "`or`"),
        ("dns and (http or redis)", 10, "exclude each other", ""),
        ('dns and request.method == "GET"', 9, "`request.method` is of http", ""),
        ('dns and method == "GET"', 9, "", ""),
        ('redis_key == "x" and kafka', 22, "`request.key` is of redis", ""),
        ("redis_request_size + dns_request_length > 1", 1, "always missing", ""),
        ("error and error == nil", 11, "exclude each other", ""),
        ("tls and not tls", 9, "exclude each other", ""),
        ("http and false", 10, "`false` stands in an `and`", "Take it out"),
    ],
)
def test_what_is_never_true_gets_a_warning(text, column, why, right):
    (doubt,) = doubts(text)
    assert doubt.message.startswith("The filter is never true: ")
    assert why in doubt.message
    assert right in doubt.suggestion
    assert doubt.suggestion
    assert (doubt.line, doubt.column) == (1, column)


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("http or not http", 9, "leave nothing out"),
        ("not (tls and not tls)", 14, "exclude each other. So the filter is always true."),
        ("response.status == 500 or true", 27, "`true` stands in an `or`"),
        ("http or limit(5)", 9, "`limit(5)` stands in an `or`"),
        ('http or redact("request.body")', 9, "stands in an `or`"),
        ("not (dst.port > 70000)", 6, "So the filter is always true."),
    ],
)
def test_what_is_always_true_gets_a_warning(text, column, why):
    (doubt,) = doubts(text)
    assert "always true" in doubt.message
    assert why in doubt.message
    assert doubt.suggestion
    assert doubt.column == column


def test_a_part_is_named_where_it_does_not_decide_the_filter():
    (doubt,) = doubts('http and (response.status == 500 or true) and\n  src.name == "a"')
    assert doubt.message == "This is always true: `true` stands in an `or`."
    assert (doubt.line, doubt.column) == (1, 37)
    (doubt,) = doubts("dns or\n   (http and src.port > 70000)")
    assert doubt.message == "This is never true: `src.port` is from 0 to 65535."
    assert (doubt.line, doubt.column) == (2, 14)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("size(request.path) >= 0", "request.path"),
        ("http and responseSize >= 0", "responseSize"),
        ("dst.port < 70000", "dst.port"),
        ('request.path.contains("")', "request.path"),
        ("method != true", "method"),
        ('status_code != "ok"', "status_code"),
    ],
)
def test_what_only_asks_whether_a_value_is_there_gets_a_warning(text, field):
    (doubt,) = doubts(text)
    assert f"every entry that has `{field}`" in doubt.message
    assert f"{field} != nil" in doubt.suggestion


@pytest.mark.parametrize(
    "text",
    [
        *("true", "false", "limit(5)", 'limit(5) and redact("request.body")', "not true"),
        "http and limit(5)",
        "request.method == 5",  # a text can be a number
        'src.port == 80 and src.port == "80.0"',
        "response.status > 500 and response.status < 501",
        'request.headers.a == "x" and request.headers.a == "y"',  # a header can be a list
        'response.answers.*.ip == "a" and response.answers.*.ip == "b"',
        "not http and not dns",
        'record("a") or record("b")',
        "src.labels.a == 1 and not (src.labels.a == true)",
        "http ? dns : redis",
        "tls and dns",
        "dns and tcp",
        "http and grpc",
        "http and ws",
        "size(request.path) > 0",
        "src.port >= 0 + 1",
        "elapsedTime >= 0 and elapsedTime < 5",
    ],
)
def test_what_can_be_true_and_false_gets_none(text):
    assert doubts(text) == []


def test_a_date_without_quotes_is_a_subtraction():
    (doubt,) = doubts("timestamp > 2026-03-14")
    assert "no date" in doubt.message
    assert 'timestamp("2026-03-14T00:00:00Z")' in doubt.suggestion


def test_words_of_operators_are_looked_into_but_not_pointed_at():
    macros = {"web": "http and not dns"}
    (doubt,) = kfl.check("tls and\n  web and dns", macros)
    assert "`web` and `dns` exclude each other" in doubt.message
    assert (doubt.line, doubt.column) == (2, 11)


def test_long_filters_are_looked_at_too():
    many = " and ".join(f'src.ip != "10.0.0.{number}"' for number in range(MAX_PAIRED))
    (doubt,) = doubts(f"{many} and dns and http")
    assert "The filter is never true" in doubt.message


def test_compile_keeps_the_warnings():
    assert kfl.compile("dns and http").warnings == kfl.check("dns and http")


@pytest.mark.parametrize(
    "text",
    ['response.status == "ok"', 'dns or response.status == "ok"'],
)
def test_what_the_usual_protocol_never_has_gets_a_warning(text):
    (doubt,) = kfl.check(text)
    assert not doubt.is_error
    assert "This is never true of http: `response.status` is a number" in doubt.message
    assert doubt.message.endswith("It can be of mysql, postgresql, mongodb alone.")
    assert doubt.suggestion == "Compare with a number, or name the protocol."


@pytest.mark.parametrize(
    "text",
    ['mysql and response.status == "ok"', "response.status == 500", 'response.status == "5"'],
)
def test_what_a_named_protocol_can_have_gets_none(text):
    assert kfl.check(text) == []
