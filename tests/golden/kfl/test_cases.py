"""Every case of the YAML files here, in each of the ways that a filter runs."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pytest
import yaml

import kfl
from kfl.functions import FUNCTIONS, METHODS
from recordings import entry as entry_json
from recordings.schema import ENTRIES

GROUPS = [
    (name == "cases.yaml", group)
    for name in ("cases.yaml", "language.yaml")
    for group in yaml.safe_load(Path(__file__).with_name(name).read_text("utf-8"))
]
"""Entries and filters as people have them; and the language, with odd values."""

CASES = [
    pytest.param(group["entry"], text, verdict, is_usual, id=f"{group['name']}: {text}")
    for is_usual, group in GROUPS
    for verdict, key in ((True, "matches"), (False, "differs"))
    for text in group[key].splitlines()
]

COLUMNS = {
    "request": ("method", "url", "path", "httpVersion", "headersSize", "bodySize", "body"),
    "response": ("status", "statusText", "httpVersion", "headersSize", "bodySize", "body"),
}
DERIVED = ("headers", "cookies", "queryString", "pathSegments", "bodyEncoding", "bodyTruncated")


def column_of(side: str, key: str) -> str:
    return f"{side}_" + "".join(f"_{c.lower()}" if c.isupper() else c for c in key)


def message_row(side: str, message: dict[str, Any], protocol: str) -> dict[str, Any]:
    # A value of another kind than the column's is in the JSON text, as a database's status.
    fits = {key: message[key] for key in COLUMNS[side] if key in message}
    if isinstance(fits.get("status"), str):
        del fits["status"]
    row: dict[str, Any] = {column_of(side, key): fits.get(key) for key in COLUMNS[side]}
    headers = message.get("headers")
    if headers is not None:
        row[f"{side}_headers"] = [
            {"name": name, "value": value}
            for name, values in headers.items()
            for value in (values if isinstance(values, list) else [values])
        ]
    row[f"{side}_body_base64"] = message.get("bodyEncoding") == "base64"
    row[f"{side}_body_truncated"] = message.get("bodyTruncated", False)
    rest = {k: v for k, v in message.items() if k not in (*fits, *DERIVED)}
    row[side] = orjson.dumps(rest).decode() if rest or protocol != "http" else None
    return row


def row_of(entry: dict[str, Any]) -> dict[str, Any]:
    """The row of ENTRIES, and `record`, that stores an entry."""
    start = datetime.fromisoformat(entry["startTime"][:26]).replace(tzinfo=UTC)
    error = entry["error"] or {}
    row: dict[str, Any] = {
        "start_time": start,
        "elapsed_us": entry["elapsedTimeUs"],
        "request_size": entry["requestSize"],
        "response_size": entry["responseSize"],
        "node_name": entry["node"]["name"],
        "node_ip": entry["node"]["ip"],
        "record": entry.get("record"),
        "error_type": error.get("type"),
        "error_msg": error.get("msg"),
        **{key: entry[key] for key in ("index", "stream", "transport", "tls")},
        **{f"protocol_{key}": value for key, value in entry["protocol"].items()},
    }
    for side in ("src", "dst"):
        peer = entry[side]
        for key in ("ip", "port", "name", "namespace", "dns"):
            row[f"{side}_{key}"] = peer.get(key)
        for key in ("pod", "service"):
            row[f"{side}_{key}"] = peer.get(key, {}).get("name")
        row[f"{side}_labels"] = orjson.dumps(peer.get("pod", {}).get("labels", {})).decode()
    for side in ("request", "response"):
        if entry[side] is not None:
            row.update(message_row(side, entry[side], entry["protocol"]["name"]))
    return row


def stored(entry: dict[str, Any]) -> pa.Table:
    schema = ENTRIES.append(pa.field("record", pa.string()))
    row = row_of(entry)
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names}], schema=schema)


def hot_columns(row: dict[str, Any]) -> dict[str, np.ndarray]:
    """What capture has: texts as objects, numbers with -1 for null."""
    found: dict[str, np.ndarray] = {}
    for field in ENTRIES:
        value = row.get(field.name)
        if pa.types.is_string(field.type) and field.name not in ("request", "response"):
            found[field.name] = np.array(["" if value is None else value], object)
        elif pa.types.is_boolean(field.type):
            found[field.name] = np.array([bool(value)])
        elif pa.types.is_integer(field.type):
            found[field.name] = np.array([-1 if value is None else value], np.int64)
    return found


def complete(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with what the cases leave out because it is empty."""
    whole = {"record": None, **entry}
    for side in ("src", "dst"):
        nothing = {"name": "", "namespace": "", "dns": ""}
        peer = {**nothing, **entry[side]}
        peer["pod"] = {"name": "", "namespace": "", "labels": {}, **peer.get("pod", {})}
        peer["service"] = {"name": "", "namespace": "", **peer.get("service", {})}
        whole[side] = peer
    return whole


@pytest.fixture(scope="module")
def duck():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.close()


def test_there_are_enough_cases():
    assert len(CASES) > 1500


# What a function or an operator looks like; each is asked for in at least eight cases.
FORMS = {
    **{name: rf"\b{name}\(" for name in (*FUNCTIONS, *METHODS)},
    **{word: rf"(^|[ (!]){word}($|[ )])" for word in ("and", "or", "not", "in", "nil")},
    **{sign: rf"[^=!<>]{re.escape(sign)}[^=]" for sign in ("==", "!=", "<", "<=", ">", ">=")},
    **{sign: rf" {re.escape(sign)} " for sign in ("+", "-", "*", "/", "%", "?")},
    **{
        "!": r"!\w",
        "&&": "&&",
        "[0]": r"\w\[\d",
        ".*": r"\.\*",
        "..": r"\w\.\.\w",
        "-x": r"-[a-z(]",
    },
    **{"r": r"\br[\"']", "[list]": r"(^|[ (])\[", "true": "true", "false": "false"},
}
FEW = {
    "now": 4,
    "seconds": 3,
    "minutes": 3,
    "weeks": 3,
    "limit": 7,
    "redact": 7,
    "days": 7,
    "hours": 7,
    "months": 3,
    "years": 3,
    "!": 3,
    "&&": 3,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_construct_has_cases(form):
    found = [case for case in CASES if re.search(FORMS[form], case.values[1])]
    assert len(found) >= FEW.get(form, 8)
    assert {case.values[2] for case in found} == {True, False} or form in FEW


@pytest.mark.parametrize(
    "entry", [pytest.param(group["entry"], id=group["name"]) for _, group in GROUPS]
)
def test_the_store_gives_the_entry_back(entry):
    """So that a verdict about a row is one about the entry of the case."""
    assert entry_json.objects(stored(entry)) == [complete(entry)]


@pytest.mark.parametrize(("entry", "text", "verdict", "is_usual"), CASES)
def test_case(entry, text, verdict, is_usual, duck):
    compiled = kfl.compile(text)
    whole = complete(entry)
    assert compiled.matches(whole) is verdict
    table = stored(entry)
    sql = compiled.sql()
    duck.register("entries", table)
    (found,) = duck.execute(f"SELECT {sql.text} FROM entries", sql.parameters).fetchone()
    assert isinstance(found, bool)
    if sql.exact:
        assert found is verdict
    else:
        assert found or not verdict
    may, must = compiled.bounds(hot_columns(row_of(entry)), 1)
    assert may[0] or not verdict
    assert verdict or not must[0]
    if compiled.is_exact:
        assert may[0] == verdict


# The few constructs that SQL leaves to matches(); a case that is not here is exact.
INEXACT = (
    ".json()",
    ".xml()",
    "startTime",
    "response.*",
    "request..",
    "response..",
    "query",
    "size(response)",
    "request.nothing == request.nothing",
    "conn_local_bytes > conn_remote_bytes",
    "flow_",
    "response.status / 100",
    "status_code",
)


@pytest.mark.parametrize("text", sorted({case.values[1] for case in CASES if case.values[3]}))
def test_most_filters_are_exact_in_sql(text):
    assert kfl.compile(text).sql().exact or any(part in text for part in INEXACT)
