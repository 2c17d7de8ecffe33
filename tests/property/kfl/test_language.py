"""What holds for every filter: text and tree, reference and SQL, columns that never contradict."""

import json

import duckdb
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

import kfl
from kfl.parse import parse
from kfl.show import show
from recordings import entry as entry_json
from recordings.schema import ENTRIES

SLOW = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# ------------------------------------------------------------------------------ filters

SELECTORS = r"""
request response request.method method status_code response.status request.path path
request.body request.pathSegments request.pathSegments[0] request.pathSegments.* request.headers
request.headers.Host request.headers["x-a"] response.headers["set-cookie"] request.headers.*
response.headers["SET-COOKIE"][0] request.cookies request.cookies.b request.cookies.* request.*
response.cookies.b request.queryString.a request.query.b request.queryString query_string.a[0]
request..name response..a request.key request.key.* request.questions.*.name request.key..name
request.payload.a.b request.body.json().a request.body.json().a.b.* request.body.xml().a.c
src.ip dst.ip src.port dst.port src.name src.pod src.pod.namespace src.service.metadata.name
src.labels src.labels.app src.labels["x~y"] src.* src..name src node.name node protocol.name
proto.abbr protocol timestamp startTime elapsedTime elapsed_time requestSize responseSize id
index stream transport tls error error.type error.msg record namespaces pods dns_questions
dns_answers dns_request redis_key amqp_method dns_total_size flow_local_bps flow_state
request.bodyEncoding response.bodyTruncated request["odd\"k"] request.key["q\""]
request.key["*"] request.key["0"] request.key[0] request.key.a.*..name request.questions.*.*
request.key.*["q\""] request.key.*[0] request.url.a request.headers..name request.queryString..a
http_version request.status
""".split()  # noqa: SIM905, a list would be a page long

TEXTS = [
    *(
        "a",
        "b",
        "GET",
        "/api/v1",
        "x=1",
        "80",
        "80.0",
        "-3",
        "é",
        "",
        "A",
        "tls",
        "1e3",
        "0",
        "007",
    ),
    *("true", "nil", "18446744073709551615", "9007199254740993", " 1", "1_0", "0x10", "٣", "b\nc"),
]

NUMBERS = [
    *(0, 1, -1, 80, 200, 500, 2**53 + 1, 2**53, 2**63, 2**64 - 1, -(2**63), 10**30),
    *(0.0, 80.0, 1.5, -2.5, 1e20, 1e-7, 9007199254740992.0),
]

texts = st.sampled_from(TEXTS).map(lambda text: json.dumps(text))
numbers = st.sampled_from([repr(number) for number in NUMBERS])
words = st.sampled_from(["true", "false", "nil"])
patterns = st.sampled_from(['r"^a"', 'r"[0-9]+"', 'r"."', 'r"e"', 'r"^$"', r'r"\."'])
scalars = st.one_of(texts, numbers, words)


def listed(items):
    return st.lists(items, max_size=3).map(lambda found: f"[{', '.join(found)}]")


constants = st.one_of(scalars, patterns, listed(st.one_of(scalars, patterns)))
plain = st.one_of(scalars, listed(st.one_of(scalars, listed(scalars))))
selectors = st.sampled_from(SELECTORS)
word_tests = st.sampled_from(
    [
        "http",
        "http2",
        "grpc",
        "gql",
        "ws",
        "dns",
        "tls",
        "tcp",
        "udp",
        "conn",
        "udp_flow",
        "limit(3)",
        'record("a")',
        'redact("request.body")',
    ]
)


def fmt(form, *parts):
    return st.tuples(*parts).map(lambda found: form.format(*found))


def deeper_values(inner):
    condition = fmt("{} == {}", inner, constants)
    return st.one_of(
        fmt("size({})", inner),
        fmt("({} {} {})", inner, st.sampled_from("+-*/%"), st.one_of(inner, numbers)),
        fmt("({} ? {} : {})", condition, inner, st.one_of(inner, scalars)),
        fmt('map_get({}, "a", {})', inner, st.one_of(scalars, inner)),
        fmt("[{}, {}]", inner, scalars),
        fmt("({})", condition),
    )


values = st.recursive(selectors, deeper_values, max_leaves=3)

comparisons = st.one_of(
    values,
    word_tests,
    fmt("{} {} {}", values, st.sampled_from(["==", "!="]), constants),
    fmt("{} {} {}", values, st.sampled_from(["<", "<=", ">", ">="]), plain),
    fmt("{} {} {}", constants, st.sampled_from(["==", "!="]), values),
    fmt("{} {} {}", values, st.sampled_from(["==", "!=", "<", ">="]), values),
    fmt("{} in {}", values, listed(st.one_of(scalars, patterns))),
    fmt("{} in {}", plain, values),
    fmt("{} in {}", values, values),
    fmt("{}.{}({})", values, st.sampled_from(["startsWith", "endsWith", "contains"]), texts),
    fmt("{}.contains({})", values, values),
    fmt("{}.matches({})", values, st.sampled_from(['"^a"', '"[0-9]"', '""'])),
)


def deeper_conditions(inner):
    return st.one_of(
        fmt("({} and {})", inner, inner),
        fmt("({} or {})", inner, inner),
        fmt("not ({})", inner),
        fmt("({} ? {} : {})", inner, inner, inner),
    )


filters = st.recursive(comparisons, deeper_conditions, max_leaves=4)


def compiled(text):
    """The filter, or None for what check refuses, such as a constant division by zero."""
    try:
        return kfl.compile(text)
    except kfl.KflError:
        return None


# ------------------------------------------------------------------------------ rows

json_values = st.recursive(
    st.one_of(
        st.sampled_from(TEXTS),
        st.sampled_from(NUMBERS[:10] + NUMBERS[12:]),
        st.booleans(),
        st.none(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["name", "a", "b", "x y", 'q"', "*", "0", "A", "é", "/", "~", ""]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)

headers = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(
                ["Host", "host", "X-A", "Cookie", "cookie", "Set-Cookie", "name"]
            ),
            "value": st.sampled_from(
                ["a", "b=1; c=2", "b=3; Path=/", "80", "", "=x; b= 5 ;;b", "é=\u00a0z "]
            ),
        }
    ),
    max_size=4,
)

URLS = [
    "/api/v1?a=1&b=2",
    "/?a=%20x&a=y",
    "/",
    "/x?b=%ff&a=1",
    "/?a=+&=1&c&a=1&a=%zz",
    "/a?n=b?c",
    "/?%61",
]
BODIES = ['{"a":{"b":[1,"x"]}}', '<a b="1"><c>x</c></a>', "", "a", "80", "eyJhIjoxfQ=="]


def null_or(*choices):
    return st.one_of(st.none(), st.sampled_from(choices))


@st.composite
def messages(draw, side, protocol):
    row = {}
    if draw(st.booleans()):
        own = {
            "request": {"method": ["GET", "a"], "url": URLS, "path": ["/api/v1", "/", "", "a/b"]},
            "response": {"status": [200, 500, 404, 80], "status_text": ["OK", "a"]},
        }[side]
        common = {"http_version": ["HTTP/1.1"], "body": BODIES, "body_size": [0, 80]}
        flags = {"body_base64": [True, False], "body_truncated": [True, False]}
        for key, choices in {**own, **common, **flags}.items():
            row[f"{side}_{key}"] = draw(null_or(*choices))
        row[f"{side}_headers"] = draw(st.one_of(st.none(), headers))
    keys = ["questions", "answers", "name", "key", "value", "payload", 'odd"k', "state", "bytes"]
    if protocol == "amqp":  # what has a column of its own may be in the JSON text when it is null
        keys += ["method", "url", "path", "status", "headers", "cookies", "queryString", "body"]
    rest = draw(st.dictionaries(st.sampled_from(keys), json_values, max_size=3))
    rest = {key: value for key, value in rest.items() if row.get(f"{side}_{key}") is None}
    text = json.dumps(rest)
    row[side] = draw(st.sampled_from([None, text, text, text, "damaged", "[1]"]))
    return row


@st.composite
def rows(draw):
    protocol = draw(
        st.sampled_from(["http", "http", "http", "ws", "dns", "redis", "amqp", "tcp", "udp"])
    )
    row = {
        "start_time": draw(st.integers(1, 2 * 10**18)),
        "index": draw(st.integers(0, 5)),
        "stream": "ab",
        "node_name": "n1",
        "node_ip": "10.0.0.1",
        "protocol_name": protocol,
        "protocol_version": draw(st.sampled_from(["1.1", "2.0", ""])),
        "protocol_abbr": draw(st.sampled_from(["HTTP", "HTTP/2", "gRPC", "GQL", protocol.upper()])),
        "transport": draw(st.sampled_from(["tcp", "udp"])),
        "tls": draw(st.booleans()),
        "elapsed_us": draw(null_or(0, 999, 1000, 500_000)),
        "request_size": draw(null_or(0, 10, 100)),
        "response_size": draw(null_or(0, 10, 200)),
        "error_type": draw(null_or("gap", "timeout")),
        "error_msg": draw(null_or("a", "")),
        "record": draw(null_or("a", "b")),
    }
    for side in ("src", "dst"):
        row[f"{side}_ip"] = draw(null_or("10.0.0.1", "10.0.0.2"))
        row[f"{side}_port"] = draw(null_or(0, 80, 443))
        for key in ("name", "namespace", "pod", "service", "dns"):
            row[f"{side}_{key}"] = draw(null_or("a", "b", "", "80"))
        labels = ['{"app":"a","x~y":"b"}', "{}", "damaged", "[1]", '{"app":5}']
        row[f"{side}_labels"] = draw(null_or(*labels))
    for side in ("request", "response"):
        row.update(draw(messages(side, protocol)))
    return row


SCHEMA = ENTRIES.append(pa.field("record", pa.string()))


def table_of(found):
    whole = [{name: row.get(name) for name in SCHEMA.names} for row in found]
    return pa.Table.from_pylist(whole, schema=SCHEMA)


def columns_of(found):
    """Hot columns: texts as objects, numbers with -1 for null."""
    columns = {}
    for field in ENTRIES:
        given_values = [row.get(field.name) for row in found]
        if pa.types.is_string(field.type) and field.name not in ("request", "response"):
            columns[field.name] = np.array(
                ["" if value is None else value for value in given_values], object
            )
        elif pa.types.is_boolean(field.type):
            columns[field.name] = np.array([bool(value) for value in given_values])
        elif pa.types.is_integer(field.type):
            columns[field.name] = np.array(
                [-1 if value is None else value for value in given_values], np.int64
            )
    return columns


# ------------------------------------------------------------------------------ properties


@pytest.fixture(scope="module")
def duck():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET threads = 1")
    yield connection
    connection.close()


@settings(max_examples=300, deadline=None)
@given(filters)
def test_a_tree_is_what_its_own_text_says(text):
    tree = parse(text).tree
    assert parse(show(tree)).tree == tree


@SLOW
@given(
    texts=st.lists(filters, min_size=6, max_size=6), found=st.lists(rows(), min_size=8, max_size=8)
)
def test_sql_says_what_the_reference_says(texts, found, duck):
    table = table_of(found)
    entries = entry_json.objects(table)
    duck.register("entries", table)
    duck.execute("CREATE OR REPLACE TEMP TABLE stored AS SELECT * FROM entries")
    for text in texts:
        chosen = compiled(text)
        if chosen is None:
            continue
        wanted = [chosen.matches(entry) for entry in entries]
        sql = chosen.sql()
        answers = duck.execute(f"SELECT {sql.text} FROM stored", sql.parameters).fetchall()
        got = [answer for (answer,) in answers]
        assert None not in got
        if sql.exact:
            assert got == wanted, text
        else:
            assert all(more or not less for more, less in zip(got, wanted, strict=True)), text


@SLOW
@given(
    st.lists(filters, min_size=8, max_size=8), st.lists(rows(), min_size=6, max_size=6), st.data()
)
def test_columns_never_contradict_the_reference(texts, found, data):
    entries = entry_json.objects(table_of(found))
    columns = columns_of(found)
    hidden = data.draw(st.sets(st.sampled_from(sorted(columns)), max_size=4))
    given_columns = {name: column for name, column in columns.items() if name not in hidden}
    for text in texts:
        chosen = compiled(text)
        if chosen is None:
            continue
        may, must = chosen.bounds(columns if chosen.is_exact else given_columns, len(found))
        assert may.dtype == must.dtype == np.bool_
        for row, entry in enumerate(entries):
            verdict = chosen.matches(entry)
            assert may[row] or not verdict, text
            assert verdict or not must[row], text
            if chosen.is_exact:
                assert may[row] == verdict, text


@SLOW
@given(filters, st.lists(rows(), min_size=4, max_size=4))
def test_what_is_known_without_an_entry_is_true_of_entries(text, found):
    chosen = compiled(text)
    if chosen is None:
        return
    wanted = chosen.protocols()
    for entry in entry_json.objects(table_of(found)):
        if chosen.matches(entry) and wanted is not None:
            assert any(kfl.compile(word).matches(entry) for word in wanted), text
        live = {**entry, "record": None}
        del live["record"]
        if chosen.matches(live):
            assert chosen.needs_live, text


anything = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="ab.[]()\"'\\=!<>&|*?:/%+-0123 \nrn", max_size=60),
    st.lists(
        st.sampled_from(
            [
                "and",
                "or",
                "not",
                "in",
                "==",
                "(",
                ")",
                "[",
                "]",
                ".",
                "..",
                ".*",
                "http",
                "request",
                'r"a"',
                '"a"',
                "1",
                "1.5",
                "?",
                ":",
                ",",
                "size",
                "#",
                "//",
                "json()",
                "nil",
                "-",
            ]
        ),
        max_size=14,
    ).map(" ".join),
)


@settings(max_examples=400, deadline=None)
@given(anything)
def test_any_text_gives_a_filter_or_a_sentence(text):
    problem = None
    try:
        chosen = kfl.compile(text)
    except kfl.KflError as error:
        problem = error
    if problem is not None:
        assert problem.message.endswith((".", "?")), problem.message
        assert problem.line >= 1
        assert problem.column >= 1
        assert any(found.is_error for found in kfl.check(text))
        return
    assert chosen.matches({}) in (True, False)
    assert isinstance(chosen.sql().text, str)
    assert not any(problem.is_error for problem in kfl.check(text))


arbitrary = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["request", "response", "headers", "protocol", "name", "status", "a", "tls"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    filters,
    st.dictionaries(
        st.sampled_from(
            ["request", "response", "src", "protocol", "tls", "error", "transport", "record"]
        ),
        arbitrary,
    ),
)
def test_any_json_object_gets_a_verdict(text, entry):
    chosen = compiled(text)
    if chosen is not None:
        assert chosen.matches(entry) in (True, False)
