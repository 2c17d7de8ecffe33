"""Generated rows of ENTRIES, and `record`: what dissectors make, and what they never would."""

import json

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa

from recordings.schema import ENTRIES
from tests.property.kfl.filters import NUMBERS, TEXTS

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


def columns_of_call(row, entry):
    """Columns of one row as capture gives them: shared ones, texts of Arrow, and late ones."""
    columns = {}
    for field in ENTRIES:
        name, value = field.name, row.get(field.name)
        if pa.types.is_string(field.type) and name not in ("request", "response"):
            is_shared = name.startswith(("protocol", "src", "response"))
            columns[name] = value if is_shared else pa.array([value], pa.string())
        elif pa.types.is_boolean(field.type):
            columns[name] = bool(value)
        elif pa.types.is_integer(field.type):
            columns[name] = value if name.startswith("r") else np.array([value or -(value is None)])
    for side in ("request", "response"):
        made = row.get(f"{side}_headers")
        for name in ("host", "x-a", "cookie", "name", "absent"):
            given = [each["value"] for each in made or () if each["name"].lower() == name]
            column = pa.array([", ".join(given) if given else None], pa.string())
            columns[f"{side}_headers.{name}"] = column
        body, text = row.get(f"{side}_body"), row.get(side)
        columns[f"{side}_body"] = lambda rows, body=body: pa.array([body] * len(rows), pa.string())
        hot = [
            name for name in ENTRIES.names if name.startswith(f"{side}_") and name != f"{side}_size"
        ]
        if row["protocol_name"] == "http" or any(row.get(name) is not None for name in hot):
            columns[f"{side}_keys"] = frozenset(entry[side] or ())
        else:
            columns[side] = lambda rows, text=text: pa.array([text] * len(rows), pa.string())
    return columns
