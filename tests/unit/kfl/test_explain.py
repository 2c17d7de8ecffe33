"""What `recorder kfl explain` says, as people see it."""

import pytest

import kfl


def explained(text):
    return kfl.compile(text).explain()


def said(text, title):
    """What is said under a title, in one line."""
    found, inside = [], False
    for line in explained(text).partition("\n\n")[2].splitlines():
        if line[:12].strip():
            inside = line[:12].strip() == title
        if inside:
            found.append(line[12:])
    return " ".join(found)


def test_the_whole_of_it():
    text = (
        'http and response.status == 500 and (src.ip == "10.0.0.1" or request.body.contains("x"))'
    )
    assert (
        explained(text)
        == """\
all of
  http  — HTTP/1.x and HTTP/2, gRPC, GraphQL and WebSocket
  response.status == 500  — response.status: HTTP status; of a database, a text
  any of
    src.ip == "10.0.0.1"  — src.ip: IP address of who asked
    request.body.contains("x")
        — request.body: body of the request, decoded; base64 where it is not
          UTF-8

dialect     KFL1
columns     protocol_name, response_status, src_ip, request_body
kernel      tcp
dissectors  http, ws
Parquet     protocol_name in http, ws; response_status in 500..500
capture     columns decide alone
queries     SQL decides alone"""
    )


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("http and response.status == 500", "KFL1"),
        ("http && status_code >= 500", "KFL2"),
        ("!dns", "KFL2"),
        ("not dns", "KFL1"),
        ("status_code == 500", "KFL2"),
        ("elapsedTime > 3", "KFL1"),
        ("http and status_code == 500", "KFL1 and KFL2, mixed"),
        ("src.port != 80", "the same in KFL1 and KFL2"),
        ('src.name == "rock and roll" # && so on', "the same in KFL1 and KFL2"),
        (r"""dns && dns_questions == r'a\'b and "'""", "KFL2"),
    ],
)
def test_the_dialect(text, dialect):
    assert said(text, "dialect") == dialect


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("grpc", "protocol_name, protocol_abbr"),
        ("tcp and tls", "transport, protocol_name, tls"),
        ("dst.pod.metadata.name == 'a'", "dst_pod"),
        ("request.headers['a'] == 'b' and request.x.y == 1", "request_headers, request"),
        ("status_code == 500", "protocol_name, response_status"),
        ('record("a")', "record"),
        ("true", "none"),
    ],
)
def test_the_columns(text, columns):
    assert said(text, "columns") == columns


@pytest.mark.parametrize(
    ("text", "kernel", "dissectors"),
    [
        ('http and src.ip == "10.0.0.1"', "tcp and host 10.0.0.1", "http, ws"),
        ("dns", "udp or (tcp and port 53)", "dns"),
        ('src.name == "shop"', 'a peer with name == "shop"', "all"),
        ("src.port == 80 and http and dns", "nothing", "none"),
        ("response.status == 500", "everything", "all"),
    ],
)
def test_what_capture_looks_at(text, kernel, dissectors):
    assert said(text, "kernel") == kernel
    assert said(text, "dissectors") == dissectors


def test_what_is_left_to_ask():
    left = 'request.cookies["a b"] == r"\\"x"'
    text = f"request.body.json().a == 1 and request.cookies.a == 1 and {left}"
    assert said(text, "capture") == (
        f"columns decide, then each entry is asked: request.cookies.a == 1; {left}"
    )
    assert said(text, "queries") == (
        "SQL decides, then each entry is asked: request.body.json().a == 1"
    )
    assert said("dns and src.port == 5", "capture") == "columns decide alone"
    assert said("dns and src.port == 5", "queries") == "SQL decides alone"


def test_lines_fit_a_terminal():
    names = ", ".join(f'"checkout-{n}"' for n in range(40))
    text = f"http and src.name in [{names}] and dst.port in {list(range(0, 900, 7))}"
    for line in explained(f"{text} and response.headers.size() > 3").splitlines():
        assert len(line) <= 80


@pytest.mark.parametrize("word", sorted(kfl.words.WORDS))
def test_every_word_can_be_explained(word):
    assert kfl.words.WORDS[word].meaning in " ".join(explained(word).split())


@pytest.mark.parametrize(
    "text",
    [
        'map_get(request.headers, "a", "b") == "c" ? size(request.body) > 3 : src.* == [1, nil]',
        "requestSize + responseSize > 5 and [src.port, 1] == [80, 1]",
        'request.questions.*.name.matches("a") or dns_total_size > 5 or request.key',
        "not (request.body.xml().a.b == true) and error",
    ],
)
def test_any_condition_can_be_explained(text):
    assert said(text, "queries")
