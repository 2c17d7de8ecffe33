import base64
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kfl
from recordings import entry, schema
from recordings.redaction import REDACTED, Redactions

CALL: dict[str, Any] = {
    "src_ip": "10.244.0.9",
    "src_name": "checkout",
    "src_namespace": "shop",
    "src_pod": "checkout-5d",
    "src_service": "checkout",
    "src_labels": '{"app":  "checkout", "tier": "web"}',
    "elapsed_us": 12431,
    "request_size": 412,
    "request_method": "GET",
    "request_url": "/api/cart?id=7&tok%65n=s%33cret&token=again&flag",
    "request_path": "/api/cart",
    "request_headers": [
        {"name": "Host", "value": "cart"},
        {"name": "Cookie", "value": "a=1; session=s3cret"},
        {"name": "X-Data", "value": '{"user": "ann", "id": 1}'},
        {"name": "cookie", "value": "session=more"},
    ],
    "request": '{"payload": {"user": "ann", "roles": ["a", "b"], "n": 1.50}}',
    "response_status": 500,
    "response_headers": [
        {"name": "Set-Cookie", "value": "session=s3cret; Path=/"},
        {"name": "Set-Cookie", "value": "other=1"},
        {"name": "Content-Length", "value": "6"},
        {"name": "Server", "value": "nginx"},
    ],
    "response_body_size": 6,
    "response_body": "broken",
    "response": "{}",
}


def redactions(*paths: str) -> Redactions:
    names = ", ".join(json.dumps(path) for path in paths)
    return Redactions(kfl.compile(f"redact({names})").redactions)


@pytest.fixture
def hide(entry_row: Callable[..., pa.Table]) -> Callable[..., tuple[Any, Any]]:
    """The entry as JSON, and the entry that the redacted table gives."""

    def make(*paths: str, **columns: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        row = entry_row(**{**CALL, **columns})
        found = entry.objects(row)[0]
        named = redactions(*paths)
        named.apply(found)
        table = named.apply_to_table(row)
        table.validate(full=True)
        assert table.schema.equals(schema.ENTRIES)
        return found, entry.objects(table)[0]

    return make


@pytest.fixture
def before(entry_row: Callable[..., pa.Table]) -> dict[str, Any]:
    return entry.objects(entry_row(**CALL))[0]


def set_at(value: Any, *place: Any) -> None:
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = REDACTED


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("request.method", ["request.method"]),
        ("method", ["request.method"]),
        ('request.headers["HOST"]', ["request.headers.Host"]),
        ("request.headers.host", ["request.headers.Host"]),
        ("response.headers.server", ["response.headers.Server"]),
        ("request.payload.user", ["request.payload.user"]),
        ("request.no.such.path", []),
        ("src.ip", ["src.ip"]),
        ("src.labels.app", ["src.pod.labels.app"]),
        ("local_labels.app", ["src.pod.labels.app"]),
        ("src.namespace", ["src.namespace", "src.pod.namespace", "src.service.namespace"]),
        ("src.pod.metadata.name", ["src.pod.name"]),
        ("src.service", ["src.name", "src.service.name"]),
        ("src.name", ["src.name", "src.service.name"]),
        ("node.name", ["node.name", "id"]),
        ("protocol.name", ["protocol.name"]),
        ("response.body", ["response.body"]),
    ],
)
def test_values_are_hidden_alike_as_json_and_as_columns(
    hide: Any, before: dict[str, Any], path: str, places: list[str]
) -> None:
    as_json, as_columns = hide(path)
    for place in places:
        set_at(before, *place.split("."))
    assert as_json == before
    if path == "protocol.name":  # of which the maps made from the target and headers depend
        assert as_columns["protocol"] == before["protocol"]
        return
    before["id"] = as_columns["id"]  # it is made of the columns
    assert as_columns == before


def test_wildcards_and_places_in_lists(hide: Any, before: dict[str, Any]) -> None:
    paths = ("request.payload.roles[1]", "request..user", "response.headers.*", "src.pod.labels.*")
    for found in hide(*paths):
        assert found["request"]["payload"] == {"user": REDACTED, "roles": ["a", REDACTED], "n": 1.5}
        assert set(map(str, found["response"]["headers"].values())) == {
            REDACTED,
            str([REDACTED] * 2),
        }
        assert found["src"]["pod"]["labels"] == {"app": REDACTED, "tier": REDACTED}
    for found in hide("request.payload.roles.*"):
        assert found["request"]["payload"]["roles"] == [REDACTED] * 2


@pytest.mark.parametrize(
    ("side", "path"),
    [
        (side, path)
        for side, header in (("request", "Cookie"), ("response", "Set-Cookie"))
        for path in (
            "cookies", "cookies.session", "cookies.*", "cookies.session[0]", "headers",
            "headers.*", f"headers['{header}']", f"headers['{header.lower()}'][0]", ".session",
        )
    ],
)  # fmt: skip
def test_a_cookie_is_hidden_in_its_map_and_its_header(hide: Any, side: str, path: str) -> None:
    for found in hide(f"{side}.{path}"):
        for secret in ("s3cret", "more"):
            assert secret not in json.dumps(found[side]["headers"])
            assert secret not in json.dumps(found[side].get("cookies"))


def test_other_cookies_stay(hide: Any) -> None:
    for found in hide("request.cookies.session", "response.cookies.session"):
        assert found["request"]["headers"]["Cookie"].startswith(f"a=1; session={REDACTED}")
        assert found["request"]["cookies"] == {"a": "1", "session": [REDACTED] * 2}
        assert found["response"]["cookies"] == {"session": REDACTED, "other": "1"}
        assert found["response"]["headers"]["Set-Cookie"] == [
            f"session={REDACTED}; Path=/",
            "other=1",
        ]


def test_a_field_of_the_query_is_hidden_in_the_target(hide: Any) -> None:
    for path in ("request.queryString.token", "query_string.token", "request.query.token[0]"):
        for found in hide(path):
            assert found["request"]["url"] == (
                f"/api/cart?id=7&tok%65n={REDACTED}&token={REDACTED}&flag"
            )
            assert found["request"]["path"] == "/api/cart"
            assert found["request"]["queryString"]["id"] == "7"
            assert found["request"]["queryString"]["token"] == [REDACTED] * 2


@pytest.mark.parametrize(
    ("path", "url", "target"),
    [
        ("request.url", REDACTED, REDACTED),
        ("request.path", f"{REDACTED}?id=7", REDACTED),
        ("request.pathSegments", f"{REDACTED}?id=7", REDACTED),
        ("request.pathSegments[1]", f"/api/{REDACTED}?id=7", f"/api/{REDACTED}"),
        ("request.pathSegments.*", f"/{REDACTED}/{REDACTED}?id=7", f"/{REDACTED}/{REDACTED}"),
        ("request.queryString", f"/api/cart?{REDACTED}", "/api/cart"),
        ("request.queryString.*", f"/api/cart?id={REDACTED}", "/api/cart"),
    ],
)
def test_parts_of_the_target(hide: Any, path: str, url: str, target: str) -> None:
    for found in hide(path, request_url="/api/cart?id=7"):
        assert found["request"]["url"] == url
        assert found["request"]["path"] == target
        segments = found["request"]["pathSegments"]
        assert segments == REDACTED or "/".join(["", *segments]).endswith(target)


def test_json_in_a_field_of_the_query_and_in_a_header(hide: Any) -> None:
    url = "/?q=%7B%22user%22%3A+%22ann%22%2C%22n%22%3A1%7D&n=1"
    paths = ("request.queryString.q.json().user", "request.headers['x-data'].json().user")
    for found in hide(*paths, request_url=url, request_path="/"):
        assert json.loads(found["request"]["queryString"]["q"]) == {"user": REDACTED, "n": 1}
        assert found["request"]["url"].endswith("&n=1")
        assert found["request"]["headers"]["X-Data"] == f'{{"user": "{REDACTED}", "id": 1}}'


def test_what_is_no_text_becomes_text_in_json_and_null_in_columns(hide: Any) -> None:
    paths = ("response.status", "elapsedTime", "dst.port", "request.headersSize", "requestSize")
    as_json, as_columns = hide(*paths)
    assert as_json["response"]["status"] == as_json["elapsedTimeUs"] == REDACTED
    assert as_json["requestSize"] == REDACTED
    assert "status" not in as_columns["response"]
    for value in (as_columns["elapsedTimeUs"], as_columns["dst"]["port"]):
        assert value is as_columns["requestSize"] is None


@pytest.mark.parametrize("path", ["request_body_size", "response_body_size"])
def test_the_size_of_a_body_is_also_in_its_header(hide: Any, path: str) -> None:
    as_json, as_columns = hide(path)
    is_answer = path.startswith("response")
    for found in (as_json, as_columns):
        length = found["response"]["headers"]["Content-Length"]
        assert length == (REDACTED if is_answer else "6")
    assert ("bodySize" in as_columns["response"]) is not is_answer


@pytest.mark.parametrize("side", ["request", "response"])
def test_a_whole_side_is_hidden(hide: Any, side: str) -> None:
    as_json, as_columns = hide(side)
    assert as_json[side] == REDACTED
    for secret in ("session", "/api", "ann", "GET", "500", "nginx", "broken", "Cookie"):
        assert secret not in str(as_columns[side])


def test_null_stays_null(hide: Any) -> None:
    as_json, as_columns = hide("error", "src.dns", "dst.labels")
    assert as_json["error"] is as_columns["error"] is None
    assert as_columns["src"]["dns"] == ""


def test_a_repeated_redaction_changes_nothing_more(entry_row: Any) -> None:
    named = redactions(
        "request.cookies.session", "request.query.token", "request.payload..user", "src.service"
    )
    once = named.apply_to_table(entry_row(**CALL))
    assert named.apply_to_table(once).equals(once)


def test_many_rows_with_and_without_headers(rows: Any) -> None:
    secret = [{"name": "Authorization", "value": "s3cret"}, {"name": "Host", "value": "a"}]
    table = rows(
        "entries",
        {"request_headers": secret},
        {"request_headers": None},
        {"request_headers": []},
        {"request_headers": secret[::-1]},
    )
    hidden = redactions("request.headers.authorization").apply_to_table(
        pa.concat_tables([table, table.slice(1, 3)])
    )
    shown = [{"name": "Authorization", "value": REDACTED}, secret[1]]
    expected = [shown, None, [], shown[::-1]]
    assert hidden["request_headers"].to_pylist() == [*expected, *expected[1:]]


def test_columns_that_are_not_there_and_others(entry_row: Any) -> None:
    table = entry_row(**CALL).select(["node_name", "src_name", "response_body"])
    table = table.append_column("record", pa.array(["web"]))
    named = redactions("request", "response.body.json().x", "src.service", "src.name", "record")
    found = named.apply_to_table(table)
    assert found.to_pylist() == [
        {"node_name": "node-1", "src_name": REDACTED, "response_body": "broken", "record": "web"}
    ]


def test_addresses_are_hidden_in_the_table_of_streams_too(rows: Any) -> None:
    streams = rows("streams", {}).drop_columns(["first_time", "matched_time"])
    (found,) = redactions("src.ip", "dst.port").apply_to_streams(streams).to_pylist()
    assert found["client_ip"] == found["server_ip"] == REDACTED
    assert found["client_port"] == found["server_port"] == 0
    assert redactions("src.name").apply_to_streams(streams).equals(streams)


# ---------------------------------------------------------------------------------- bodies


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


DOCUMENT = '{"user": {"password": "s3cret", "n": 12345678901234567890123}, "a":[1.50,{"x":1}] }'


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("path", ["user.password", "user..password", ".password", "*.password"])
def test_only_the_named_value_of_a_json_body_changes(hide: Any, packed: bool, path: str) -> None:
    shape = in_base64 if packed else str
    for found in hide(
        f"request.body.json().{path}",
        request_body=shape(DOCUMENT),
        request_body_base64=packed,
    ):
        assert found["request"]["body"] == shape(DOCUMENT.replace("s3cret", REDACTED))
        assert found["request"].get("bodyEncoding") == ("base64" if packed else None)


XML = '<?xml version="1.0"?>\n<n:a xmlns:n="u"><b id="7">s3cret</b><!-- s --> <c>1 &lt; 2</c></n:a>'


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("a.b", XML.replace('<b id="7">s3cret</b>', f"<b>{REDACTED}</b>")),
        ('a.b["#text"]', XML.replace("s3cret", REDACTED)),
        ('a.b["-id"]', XML.replace('"7"', f'"{REDACTED}"')),
        ("a.c", XML.replace("1 &lt; 2", REDACTED)),
        (".c", XML.replace("1 &lt; 2", REDACTED)),
        ("a.b[0]", XML.replace('<b id="7">s3cret</b>', f"<b>{REDACTED}</b>")),
        ("a.no", XML),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_only_the_named_value_of_an_xml_body_changes(
    hide: Any, path: str, hidden: str, packed: bool
) -> None:
    shape = in_base64 if packed else str
    for found in hide(f"response.body.xml().{path}", response_body=shape(XML)):
        assert found["response"]["body"] == shape(hidden)


@pytest.mark.parametrize(
    ("body", "columns", "stays"),
    [
        ("password=s3cret", {}, True),
        ("", {}, True),
        ('{"password": "s3cr', {"request_body_truncated": True}, False),
        ('{"password": "s3cr', {}, False),
        ('{"password": "s3cret",}', {}, False),
        ('{"a": 1}\n{"password": "s3cret"}\n', {}, False),
        ('\ufeff{"password": "s3cret"}', {}, False),
        ("password=s3c", {"request_body_truncated": True}, False),
        (in_base64('{"password": "s3cr'), {"request_body_base64": True}, False),
        (base64.b64encode('{"password":"s"}'.encode("utf-16")).decode(), {}, False),
        (base64.b64encode(b"\xff\xd8 picture").decode(), {"request_body_base64": True}, True),
        (
            base64.b64encode(b"\x1b\x07 compressed").decode(),
            {
                "request_body_base64": True,
                "request_headers": [{"name": "Content-Encoding", "value": "br2"}],
            },
            False,
        ),
    ],
)
def test_what_cannot_be_decoded(hide: Any, body: str, columns: Any, stays: bool) -> None:
    as_json, as_columns = hide("request.body.json().password", request_body=body, **columns)
    assert as_json["request"]["body"] == (body if stays else REDACTED)
    assert as_columns["request"]["body"] == as_json["request"]["body"]
    assert as_columns["request"].get("bodyEncoding") == as_json["request"].get("bodyEncoding")


def test_octets_that_are_not_utf_8_stay(hide: Any) -> None:
    octets = '{"password":"s3cret","name":"Zoë"}'.encode("latin-1")
    body = base64.b64encode(octets).decode()
    for found in hide("request.body.json().password", request_body=body, request_body_base64=True):
        assert base64.b64decode(found["request"]["body"]) == octets.replace(
            b"s3cret", REDACTED.encode()
        )


def test_json_inside_of_json_in_base64(hide: Any) -> None:
    inner = in_base64('{"token": "s3cret", "n": 1}')
    outer = json.dumps({"data": inner, "m": 2})
    for found in hide("response.body.json().data.json().token", response_body=outer):
        data = json.loads(found["response"]["body"])["data"]
        assert base64.b64decode(data).decode() == f'{{"token": "{REDACTED}", "n": 1}}'


# ---------------------------------------------------------------------------------- any call

SECRET = "s3cret-\u00e4 &<>;=\\\"'"
PLAIN = "s3cret"


def places_of(secret: str) -> dict[str, tuple[str, Any]]:
    """Paths, and for each a column that has the secret at it, with other things beside it."""
    document = json.dumps({"a": [{"b": secret, "c": 1}, 2], "d": "e"}, ensure_ascii=False)
    markup = secret.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    xml = f'<a x="{markup}"><b>{markup}</b><b>2</b>mixed</a>'

    def header(name: str, value: str) -> list[dict[str, str]]:
        return [{"name": "One", "value": "1"}, {"name": name, "value": value}]

    return {
        "request.headers.Token": ("request_headers", header("token", secret)),
        "response.headers.*": ("response_headers", header("Any", secret)),
        "request.headers.T.json().a.*.b": ("request_headers", header("T", document)),
        "request.cookies.c": ("request_headers", header("Cookie", f"a=b; c={PLAIN}; d=e")),
        "response.cookies.c": ("response_headers", header("Set-Cookie", f"c={PLAIN}; Path=/")),
        "request.query.c": ("request_url", f"/a?b=1&c={PLAIN}&d"),
        "request.pathSegments[2]": ("request_url", f"/a/b/{PLAIN}/d?e"),
        "request.body": ("request_body", secret),
        "request.body.json().a[0].b": ("request_body", document),
        "request.body.json().a.*.b": ("request_body", in_base64(document)),
        "response.body.json()..b": ("response_body", document),
        "response.body.json().*": ("response_body", document.replace("2", f'"{PLAIN}"')),
        "response.body.xml().a.b[0]": ("response_body", xml.replace(markup, "1", 1)),
        "response.body.xml()..b": ("response_body", in_base64(xml.replace(markup, "1", 1))),
        "response.body.xml().a": ("response_body", xml),
        "request.any.a..b": ("request", f'{{"any":{document}}}'),
        "response.*.b": ("response", f'{{"any": {{"b": {json.dumps(secret)}}}}}'),
        "request.any.json().d": (
            "request", json.dumps({"any": json.dumps({"c": 1, "d": secret})}),
        ),
        "request.method": ("request_method", secret),
        "src.pod": ("src_pod", secret),
        "dst.labels.app": ("dst_labels", json.dumps({"app": secret, "b": "c"})),
        "error.msg": ("error_msg", secret),
    }  # fmt: skip


BODY_ENDS = st.text(alphabet='{}[]",:ab \\\n', max_size=6)


@given(st.lists(st.sampled_from(sorted(places_of(SECRET))), min_size=1, max_size=5, unique=True))
def test_secrets_are_nowhere_and_all_else_stays(paths: list[str]) -> None:
    places = places_of(SECRET)
    columns: dict[str, Any] = {"protocol_name": "http"}
    taken = []
    for path in paths:
        column, value = places[path]
        if column not in columns:
            columns[column] = value
            taken.append(path)
    row = {field.name: None for field in schema.ENTRIES}
    row |= {name: "" for name in schema.ENTRIES.names if not schema.ENTRIES.field(name).nullable}
    row |= {"start_time": 1, "index": 3, "tls": False, **columns}
    table = pa.Table.from_pylist([row], schema.ENTRIES)
    hidden = redactions(*taken).apply_to_table(table)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, hidden.schema) as stream:
        stream.write_table(hidden)
    octets = sink.getvalue().to_pybytes()
    for form in (SECRET, PLAIN, in_base64(SECRET), json.dumps(SECRET)[1:-1]):
        assert form.encode() not in octets
    for path in taken:
        values = base64_of(hidden[places[path][0]].to_pylist())
        assert not any(PLAIN in value for value in values)
    changed = {name for name in table.column_names if table[name] != hidden[name]}
    assert changed == {places[path][0] for path in taken}
    (before,), (after,) = entry.objects(table), entry.objects(hidden)
    redactions(*taken).apply(before)
    assert before == after


def base64_of(values: list[Any]) -> list[str]:
    """Return texts, out of their base64 too."""
    found = [json.dumps(values, ensure_ascii=False)]
    for value in values:
        if isinstance(value, str):
            try:
                found.append(base64.b64decode(value, validate=True).decode("utf-8", "replace"))
            except ValueError:
                continue
    return found


@given(BODY_ENDS, BODY_ENDS, st.integers(0, 60))
def test_no_form_of_a_body_shows_a_secret_that_follows_its_name(
    begin: str, end: str, cut: int
) -> None:
    """Whatever it was put into, and wherever it was cut: if it is JSON or begins as JSON."""
    body = begin + '{"a": {"password": "s3cret"}, "b": [1, 2]}'[:cut] + end
    if not body.lstrip().startswith(("{", "[")):
        return
    found: dict[str, Any] = {"request": {"body": body}}
    redactions("request.body.json()..password").apply(found)
    shown = found["request"]["body"]
    if shown != REDACTED:
        before, after = json.loads(body), json.loads(shown)
        assert without(before) == without(after)
        assert "s3" not in shown or "password" not in json.dumps(before)


def without(value: Any) -> Any:
    """Return a document in which nothing stands under `password`."""
    if isinstance(value, dict):
        return {key: without(each) for key, each in value.items() if key != "password"}
    return [without(each) for each in value] if isinstance(value, list) else value


def test_what_graphql_shows_of_a_body_goes_with_it(entry_row: Callable[..., pa.Table]) -> None:
    row = entry_row(
        **{
            **CALL,
            "request_body": '{"query": "query Ann { s3cret }"}',
            "request": '{"gqlOperationType": "query", "gqlOperationName": "Ann", "other": 1}',
            "response_body": '{"errors": [{"message": "s3cret"}]}',
            "response": '{"gqlErrors": [{"message": "s3cret"}], "gqlErrorCount": 1}',
        }
    )
    for path in ("request.body", "request.body.json().query"):
        (found,) = entry.objects(redactions(path).apply_to_table(row))
        shown = {key: found["request"][key] for key in ("gqlOperationType", "gqlOperationName")}
        assert set(shown.values()) == {REDACTED}
        assert found["request"]["other"] == 1
    named = redactions("response.body.json().errors")
    (found,) = entry.objects(named.apply_to_table(row))
    named.apply(by_object := entry.objects(row)[0])
    assert "s3cret" not in json.dumps(
        [found["response"]["gqlErrors"], by_object["response"]["gqlErrors"]]
    )
    (found,) = entry.objects(redactions("request.method").apply_to_table(row))
    assert found["request"]["gqlOperationName"] == "Ann"
