"""redact("path"): hides values in what is returned. Called by formats, for each entry that is sent.

The same value stands in several places of an entry: a cookie in its map and in its header, a query
string in its map and in the target. Hidden in one place it could be read in another, so all are.
"""

from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pyarrow as pa

from kfl import ast
from kfl.fields import NAMES
from kfl.parse import parse_selector
from recordings import schema

REDACTED = "[REDACTED]"

TARGET = ("url", "path", "pathSegments", "queryString")
"""Parts of a request's target: each can be read from the others."""

COOKIES = {"request": "cookie", "response": "set-cookie"}
"""The header that holds what `cookies` shows."""

Steps = tuple[ast.Step, ...]


class Redactions:
    """The redactions of one statement."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Raises KflError for a path that is no selector; compiling the statement has found it."""
        self._paths = _all_places(paths)

    def apply(self, entry: dict[str, Any]) -> None:
        """Replace the values in the JSON object of an entry."""
        for path in self._paths:
            _hide(entry, path)

    def apply_to_table(self, table: pa.Table) -> pa.Table:
        """Return ENTRIES with the values replaced.

        A column that a path touches is hidden as a whole; of headers and of JSON text only the
        values that it leads to. What is not text becomes null, or 0.
        """
        for path in self._paths:
            for name in _columns(path):
                if name in table.column_names:
                    index = table.schema.get_field_index(name)
                    table = table.set_column(
                        index, table.schema.field(index), _hidden(table[name], name, path)
                    )
        return table


def _all_places(paths: Iterable[str]) -> list[Steps]:
    """Return the paths of all places where the values of `paths` stand."""
    found: dict[Steps, None] = {}
    for text in paths:
        for path in _with_names(_steps(text)):
            found |= dict.fromkeys(_with_copies(path))
    return list(found)


def _steps(text: str) -> Steps:
    node = parse_selector(text, ast.START)
    if isinstance(node, ast.Name):
        return (ast.Key(node.word),)
    if isinstance(node, ast.Path) and isinstance(node.base, ast.Name):
        return (ast.Key(node.base.word), *node.steps)
    return ()


def _with_names(path: Steps) -> list[Steps]:
    """Return the path as it was written, and where the catalogue says that such a field is."""
    found = [path] if path else []
    for length in range(len(path), 0, -1):
        keys = [step.name for step in path[:length] if isinstance(step, ast.Key)]
        field = NAMES.get(".".join(keys)) if len(keys) == length else None
        if field is not None:
            return found + [_steps(place) + path[length:] for place in field.paths]
    return found


def _with_copies(path: Steps) -> list[Steps]:
    """Return the path and those of other places where the same value stands."""
    if len(path) < 2 or not isinstance(path[0], ast.Key) or not isinstance(path[1], ast.Key):
        return [path]
    side, part = path[0].name, path[1].name
    copies = [path]
    if side not in COOKIES:
        return copies
    if part in TARGET:
        copies += [(path[0], ast.Key(other)) for other in TARGET if other != part]
    if part == "cookies":
        copies.append((path[0], ast.Key("headers"), ast.Key(COOKIES[side])))
    header = path[2] if part == "headers" and len(path) > 2 else None
    if part == "headers" and (
        not isinstance(header, ast.Key) or header.name.lower() == COOKIES[side]
    ):
        copies.append((path[0], ast.Key("cookies")))
    return copies


def _hide(value: Any, path: Steps, parent: str = "") -> None:
    """Replace what `path` leads to from `value`; `parent` is the key under which `value` stands."""
    step, rest = path[0], path[1:]
    for key in _matching(value, step, parent):
        if not rest:
            if value[key] is not None:
                value[key] = REDACTED
        else:
            _hide(value[key], rest, key if isinstance(key, str) else "")
    if isinstance(step, ast.Deep):
        for key in _matching(value, ast.Each(), parent):
            _hide(value[key], path, key if isinstance(key, str) else "")


def _matching(value: Any, step: ast.Step, parent: str) -> list[Any]:
    """Return the keys of a map, or the indices of a list, that a step means."""
    if isinstance(value, dict):
        if isinstance(step, ast.Each):
            return list(value)
        if isinstance(step, ast.Key | ast.Deep):
            if parent == "headers":
                return [key for key in value if key.lower() == step.name.lower()]
            return [step.name] if step.name in value else []
    if isinstance(value, list):
        if isinstance(step, ast.Each):
            return list(range(len(value)))
        if isinstance(step, ast.Index) and -len(value) <= step.number < len(value):
            return [step.number]
    return []


PEERS = ("src", "dst")
SNAKE = {
    "httpVersion": "http_version",
    "headersSize": "headers_size",
    "bodySize": "body_size",
    "bodyTruncated": "body_truncated",
    "bodyEncoding": "body_base64",
    "statusText": "status_text",
    "pathSegments": "path",
    "queryString": "url",
}
TOP_COLUMNS = {
    "elapsedTime": ("elapsed_us",),
    "elapsedTimeUs": ("elapsed_us",),
    "requestSize": ("request_size",),
    "responseSize": ("response_size",),
    "timestamp": ("start_time",),
    "startTime": ("start_time",),
    "error": ("error_type", "error_msg"),
    "node": ("node_name", "node_ip"),
    "protocol": ("protocol_name", "protocol_version", "protocol_abbr"),
}
"""Columns of ENTRIES whose names do not follow from the path."""


def _columns(path: Steps) -> list[str]:
    """Return the columns of ENTRIES that hold what a path leads to; all if it cannot be told."""
    names = [step.name if isinstance(step, ast.Key) else None for step in path[:2]]
    first, second = names[0], names[1] if len(names) > 1 else None
    if first is None:
        return list(schema.ENTRIES.names)
    if first in TOP_COLUMNS:
        found = list(TOP_COLUMNS[first])
        return [name for name in found if second is None or name.endswith(f"_{second}")] or found
    side = [name for name in schema.ENTRIES.names if name == first or name.startswith(f"{first}_")]
    if first in COOKIES:
        side = [name for name in side if name not in ("request_size", "response_size")]
    if second is None:
        return side
    keys = [step.name for step in path if isinstance(step, ast.Key)]
    # Labels and namespace stand below the pod, or the service, in an entry.
    below = next((key for key in ("labels", "namespace") if key in keys[2:]), second)
    own = f"{first}_{SNAKE.get(below if first in PEERS else second, second)}"
    if own in schema.ENTRIES.names:
        return [own]
    return [first] if first in COOKIES else side


def _hidden(column: pa.ChunkedArray, name: str, path: Steps) -> pa.ChunkedArray:
    """Return a column with what the path leads to replaced."""
    field = schema.ENTRIES.field(name)
    change: Callable[[Any], Any]
    if name.endswith("_headers"):
        change = _header_change(path)
    elif name in COOKIES:
        change = _json_change(path)
    elif pa.types.is_string(field.type):

        def change(_: Any) -> Any:
            return REDACTED
    else:
        nothing = None if field.nullable else pa.scalar(0).cast(field.type).as_py()

        def change(_: Any) -> Any:
            return nothing

    values = [None if value is None else change(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(values, field.type)])


def _header_change(path: Steps) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    step = path[2] if len(path) > 2 else None
    only = step.name.lower() if isinstance(step, ast.Key | ast.Deep) else None

    def change(headers: list[dict[str, str]]) -> list[dict[str, str]]:
        return [
            {**header, "value": REDACTED}
            if only is None or header["name"].lower() == only
            else header
            for header in headers
        ]

    return change


def _json_change(path: Steps) -> Callable[[str], str]:
    def change(text: str) -> str:
        if len(path) < 2 or not isinstance(path[0], ast.Key):
            return orjson.dumps(REDACTED).decode()
        found = orjson.loads(text)
        _hide(found, path[1:], path[0].name)
        return orjson.dumps(found).decode()

    return change
