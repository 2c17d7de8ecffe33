"""Where in a row the value at a path of an entry is. `conditions` asks for each selector."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from kfl import core
from kfl.sql import message
from kfl.sql.pieces import (
    NIL_JSON,
    NULL_JSON,
    TRUE,
    Piece,
    all_of,
    each,
    items_of,
    let,
    parameter,
    put,
    some_of,
    texts,
    those,
)
from kfl.sql.quick import Floor, InJson
from kfl.sql.values import MISSING, Either, Keyed, Plain, Unknown, Value, present, to_json
from kfl.words import HTTP_IN_COLUMNS

_MESSAGE_COLUMNS = {
    "request": {
        "method": ("text", "request_method"),
        "url": ("text", "request_url"),
        "path": ("text", "request_path"),
        "httpVersion": ("text", "request_http_version"),
        "headersSize": ("integer", "request_headers_size"),
        "bodySize": ("integer", "request_body_size"),
        "body": ("text", "request_body"),
    },
    "response": {
        "status": ("integer", "response_status"),
        "statusText": ("text", "response_status_text"),
        "httpVersion": ("text", "response_http_version"),
        "headersSize": ("integer", "response_headers_size"),
        "bodySize": ("integer", "response_body_size"),
        "body": ("text", "response_body"),
    },
}

# Keys of an entry that are always there: kind, SQL, and whether NULL is nil.
_TOP: dict[str, Plain] = {
    "id": Plain("text", Piece("(node_name || '/' || stream || '-' || \"index\")")),
    "index": Plain("integer", Piece('"index"')),
    "stream": Plain("text", Piece("stream")),
    "record": Plain("text", Piece("record"), nil=True),
    "transport": Plain("text", Piece("transport")),
    "tls": Plain("bool", Piece("tls")),
    "timestamp": Plain(
        "integer",
        Piece("(epoch_us(start_time) // 1000)"),
        floor=Floor(Piece("start_time"), 1000, is_time=True),
    ),
    "elapsedTime": Plain(
        "integer", Piece("(elapsed_us // 1000)"), nil=True, floor=Floor(Piece("elapsed_us"), 1000)
    ),
    "elapsedTimeUs": Plain("integer", Piece("elapsed_us"), nil=True),
    "requestSize": Plain("integer", Piece("request_size"), nil=True),
    "responseSize": Plain("integer", Piece("response_size"), nil=True),
}

_HEADERS_AND_DERIVED = frozenset(
    {"headers", "cookies", "queryString", "pathSegments", "bodyEncoding", "bodyTruncated"}
)
"""Keys of a message, beside those with columns, that need not be in its JSON text."""

_OF_PEER = {
    ("ip",): "coalesce({side}_ip, '')",
    ("name",): "coalesce({side}_name, '')",
    ("namespace",): "coalesce({side}_namespace, '')",
    ("dns",): "coalesce({side}_dns, '')",
    ("pod", "name"): "coalesce({side}_pod, '')",
    ("pod", "namespace"): (
        "(CASE WHEN {side}_pod <> '' THEN coalesce({side}_namespace, '') ELSE '' END)"
    ),
    ("service", "name"): "coalesce({side}_service, '')",
    ("service", "namespace"): (
        "(CASE WHEN {side}_service <> '' THEN coalesce({side}_namespace, '') ELSE '' END)"
    ),
}

_COALESCED = re.compile(r"coalesce\((\w+), ''\)\Z")

_LABELS = (
    "(CASE WHEN TRY(json_type({side}_labels)) = 'OBJECT' THEN {side}_labels::JSON"
    " ELSE '{{}}'::JSON END)"
)

_SAFE_KEY = re.compile(r'[^"\\*?\x00]+\Z')
"""Keys that stand in a JSON path between quotes."""


class Selector:
    """Finds values in rows of the given protocols; they are asked for only when they matter."""

    def __init__(self, protocols: Callable[[], Collection[str] | None]) -> None:
        self._protocols = protocols
        self._known: bool | None = None

    @property
    def _in_columns(self) -> bool:
        """HTTP's fields are in their columns, and nowhere else."""
        if self._known is None:
            protocols = self._protocols()
            self._known = protocols is not None and HTTP_IN_COLUMNS.issuperset(protocols)
        return self._known

    def select(self, steps: tuple[core.Step, ...]) -> Value:
        """The value at a path of an entry."""
        first, rest = steps[0], steps[1:]
        assert isinstance(first, core.Key)
        root = first.name
        if root in ("request", "response"):
            return self._message(root, rest)
        if root in _TOP:
            return below(_TOP[root], rest)
        if root in ("src", "dst"):
            return _peer(root, rest)
        if root == "node":
            parts = {"name": Piece("node_name"), "ip": Piece("node_ip")}
            return _object(parts, rest)
        if root == "protocol":
            parts = {key: Piece(f"protocol_{key}") for key in ("name", "version", "abbr")}
            return _object(parts, rest)
        if root == "error":
            return _error(rest)
        if root == "startTime":  # DuckDB has microseconds, the JSON nanoseconds
            return Unknown()
        return MISSING

    def _message(self, side: str, rest: tuple[core.Step, ...]) -> Value:
        if not rest:
            return self._whole_message(side)
        first, below_it = rest[0], rest[1:]
        if isinstance(first, core.Each):
            return Unknown(message_present(side))
        if isinstance(first, core.Deep):
            return below(_deep_in_message(side, first.name), below_it)
        if not isinstance(first, core.Key):
            return MISSING
        key = first.name
        columns = _MESSAGE_COLUMNS[side]
        if key not in columns and key not in _HEADERS_AND_DERIVED:
            return below_json_column(side, rest)
        stored = MISSING if self._in_columns else below_json_column(side, rest)
        if key in columns:
            kind, column = columns[key]
            return self._or_stored(column, below(Plain(kind, Piece(column)), below_it), stored)
        if key == "headers":
            own = below_keyed(message.headers(side), below_it)
            if not below_it:
                return Either(Piece(f"{side}_headers IS NOT NULL"), own, stored)
            in_json = MISSING if stored == MISSING else _headers_in_json(side, below_it)
            return self._or_stored(f"{side}_headers", own, in_json)
        return self._derived(side, key, below_it, stored)

    def _or_stored(self, column: str, own: Value, stored: Value) -> Value:
        """What a column says, which is missing where it is NULL; there, what the JSON says."""
        if stored == MISSING:
            return own
        elsewhere = f"({column} IS NULL AND protocol_name NOT IN {texts(HTTP_IN_COLUMNS)})"
        return Either(Piece(f"{column} IS NOT NULL"), own, stored, Piece(elsewhere))

    def _derived(
        self, side: str, key: str, below_it: tuple[core.Step, ...], stored: Plain
    ) -> Value:
        """What an entry makes of the columns of an HTTP message."""
        there = message_present(side)
        own: Value
        if key in ("bodyEncoding", "bodyTruncated"):
            flag = "body_base64" if key == "bodyEncoding" else "body_truncated"
            own = Plain("text", Piece("'base64'")) if key == "bodyEncoding" else Plain("bool", TRUE)
            condition = all_of([Piece(f"coalesce({side}_{flag}, FALSE)"), there])
            return Either(condition, below(own, below_it), stored)
        is_http = Piece("protocol_name = 'http'")
        if key == "cookies":
            own = below_keyed(message.cookies(side), below_it)
            return Either(all_of([is_http, there]), own, stored)
        if side == "response":
            return stored
        name = "url" if key == "queryString" else "path"
        text = Piece(f"request_{name}") if stored == MISSING else _text_of(name)
        condition = put("(protocol_name = 'http' AND {} IS NOT NULL)", text)
        if key == "queryString":
            own = below_keyed(message.query(text), below_it)
        else:
            own = below(message.path_segments(text), below_it)
        return Either(condition, own, stored)

    def _whole_message(self, side: str) -> Value:
        """The bare message: a map, which is true, or nil. What is in it, SQL asks by key."""
        return Either(
            message_present(side),
            Keyed(
                lambda name: self._message(side, (core.Key(name),)),
                lambda: Plain("many", Piece("NULL::JSON[]"), sure=Piece("FALSE")),
                lambda: Plain("integer", Piece("NULL::BIGINT"), sure=Piece("FALSE")),
            ),
            Plain("json", NIL_JSON),
        )


def _object(parts: dict[str, Piece], rest: tuple[core.Step, ...]) -> Value:
    """A map of texts that are always there."""
    if rest and isinstance(rest[0], core.Key) and rest[0].name in parts:
        return below(Plain("text", parts[rest[0].name]), rest[1:])
    return below(Plain("json", _json_object({key: parts[key] for key in parts})), rest)


def _json_object(parts: dict[str, Piece]) -> Piece:
    """A JSON object with names of ours as keys."""
    pairs = [put(f"'{key}', {{}}", piece) for key, piece in parts.items()]
    made = pairs[0]
    for pair in pairs[1:]:
        made = put("{}, {}", made, pair)
    return put("json_object({})", made)


def _peer(side: str, rest: tuple[core.Step, ...]) -> Value:
    keys = tuple(step.name for step in rest if isinstance(step, core.Key))
    for length in (2, 1):
        if keys[:length] in _OF_PEER and all(isinstance(s, core.Key) for s in rest[:length]):
            text = _OF_PEER[keys[:length]].format(side=side)
            column = _COALESCED.match(text)
            bare = Piece(column[1]) if column else None
            return below(Plain("text", Piece(text), bare=bare), rest[length:])
    port = Plain("integer", Piece(f"{side}_port"), nil=True)
    labels = Piece(_LABELS.format(side=side))
    if rest[:1] == (core.Key("port"),):
        return below(port, rest[1:])
    if rest[:2] == (core.Key("pod"), core.Key("labels")):
        return below(Plain("json", labels), rest[2:])
    texts = {keys: Piece(text.format(side=side)) for keys, text in _OF_PEER.items()}
    pod = {"name": texts["pod", "name"], "namespace": texts["pod", "namespace"], "labels": labels}
    service = {key: texts["service", key] for key in ("name", "namespace")}
    whole = {
        "ip": texts["ip",],
        "port": port.piece,
        "name": texts["name",],
        "namespace": texts["namespace",],
        "pod": _json_object(pod),
        "service": _json_object(service),
        "dns": texts["dns",],
    }
    return below(Plain("json", _json_object(whole)), rest)


def _error(rest: tuple[core.Step, ...]) -> Value:
    if rest == (core.Key("type"),):
        return Plain("text", Piece("error_type"))
    whole = Piece(
        "(CASE WHEN error_type IS NULL THEN 'null'::JSON"
        " ELSE json_object('type', error_type, 'msg', coalesce(error_msg, '')) END)"
    )
    return below(Plain("json", whole), rest)


# ------------------------------------------------------------------------------ messages


def message_present(side: str) -> Piece:
    """The entry has this message."""
    columns = [column for _, column in _MESSAGE_COLUMNS[side].values()]
    parts = [Piece(f"{name} IS NOT NULL") for name in (side, f"{side}_headers", *columns)]
    return some_of(parts)


def _text_of(key: str) -> Piece:
    """request.url or request.path when it is a text."""
    stored = below_json_column("request", (core.Key(key),)).piece
    return put(
        f"coalesce(request_{key}, {{}})",
        let(
            stored,
            lambda x: put("CASE WHEN json_type({}) = 'VARCHAR' THEN {}->>'$' END", x, x),
        ),
    )


def _deep_in_message(side: str, name: str) -> Value:
    """`request..name`. Rows with headers, or of HTTP, have more than their JSON text says."""
    found = put(f"coalesce(TRY(json_extract({side}, {{}})), [])", parameter(f"$..{name}"))
    if name in _MESSAGE_COLUMNS[side]:
        _, column = _MESSAGE_COLUMNS[side][name]
        own = Piece(f"CASE WHEN {column} IS NULL THEN [] ELSE [to_json({column})] END")
        found = put("list_concat({}, {})", found, own)
    sure = [Piece(f"(protocol_name <> 'http' AND {side}_headers IS NULL)")]
    if name in ("bodyEncoding", "bodyTruncated"):
        sure.append(Piece(f"{side}_body IS NULL"))
    made = put("CASE WHEN {} THEN {} END", message_present(side), found)
    return Plain("many", made, sure=all_of(sure))


def _headers_in_json(side: str, rest: tuple[core.Step, ...]) -> Value:
    """Headers of a protocol that keeps them in its JSON text: names in any case."""
    holder = below_json_column(side, (core.Key("headers"),))
    first = rest[0]
    if not isinstance(first, core.Key):
        return below(holder, rest)
    found = let(holder.piece, lambda x: _any_case(x, first.name))
    return below(Plain("json", found), rest[1:])


def _any_case(x: Piece, name: str) -> Piece:
    exact = _key(x, name)
    key = put("list_filter(json_keys({}), lambda k: lower(k) = {})[1]", x, parameter(name.lower()))
    pointer = put("'/' || replace(replace({}, '~', '~0'), '/', '~1')", key)
    return put(
        "CASE WHEN json_type({}) = 'OBJECT' THEN coalesce({}, json_extract({}, {})) END",
        x,
        exact,
        x,
        pointer,
    )


# ------------------------------------------------------------------------------ JSON


def below_json_column(column: str, steps: tuple[core.Step, ...]) -> Plain:
    """The value at a path of a column of JSON text; damaged text has nothing in it."""
    path, rest = _plain_path(steps)
    hint = InJson(Piece(column), "$" + path)
    if not path:
        whole = Piece(f"TRY(json_extract({column}, '$'))")
        return below_plain(Plain("json", whole, hint=hint), steps)
    found = put(f"TRY(json_extract({column}, {{}}))", parameter("$" + path))
    return below_plain(Plain("json", found, hint=hint), rest)


def _plain_path(steps: tuple[core.Step, ...]) -> tuple[str, tuple[core.Step, ...]]:
    """The JSON path of as many of the first steps as one can have, and the other steps."""
    path = ""
    for position, step in enumerate(steps):
        if isinstance(step, core.Key) and _SAFE_KEY.match(step.name):
            path += f'."{step.name}"'
        elif isinstance(step, core.Index):
            path += f"[{step.number}]"
        else:
            return path, steps[position:]
    return path, ()


def below(value: Value, steps: tuple[core.Step, ...]) -> Value:
    """The value at a path below a value."""
    if not steps:
        return value
    match value:
        case Unknown():
            return value
        case Either(condition=condition, yes=yes, no=no):
            return Either(condition, below(yes, steps), below(no, steps))
        case Keyed():
            return below_keyed(value, steps)
        case _:
            return below_plain(value, steps)


def below_keyed(keyed: Keyed, steps: tuple[core.Step, ...]) -> Value:
    """Below a map that is not stored as JSON."""
    if not steps:
        return keyed
    first, rest = steps[0], steps[1:]
    match first:
        case core.Key(name=name):
            return below(keyed.get(name), rest)
        case core.Each():
            return below(keyed.values(), rest)
        case core.Deep(name=name):
            # Values are texts and lists of texts, so there is nothing deeper than the keys.
            found = to_json(keyed.get(name))
            if isinstance(found, Unknown):
                return found
            made = let(
                found.piece, lambda x: put("CASE WHEN {} IS NULL THEN [] ELSE [{}] END", x, x)
            )
            return below(Plain("many", made, sure=found.sure), rest)
        case _:
            return MISSING


def below_plain(value: Plain, steps: tuple[core.Step, ...]) -> Plain:
    """Below a plain value: only JSON has anything there."""
    while steps:
        # DuckDB would take what is below a constant for no list.
        if value.kind not in ("json", "many") or value.piece in (NIL_JSON, NULL_JSON):
            return MISSING
        path, rest = _plain_path(steps)
        if path:
            value, steps = _at_path(value, path), rest
        else:
            value, steps = _at_step(value, steps[0]), steps[1:]
    return value


def _at_path(value: Plain, path: str) -> Plain:
    found = parameter("$" + path)
    if value.kind == "json":
        piece = put("json_extract({}, {})", value.piece, found)
        return _derived_from(value, "json", piece, path)
    return _in_each(value, lambda x: put("json_extract({}, {})", x, found), path)


def _derived_from(value: Plain, kind: str, piece: Piece, path: str = "") -> Plain:
    """What is below a value, at a path of DuckDB's if it has one."""
    hint = value.hint
    if isinstance(hint, InJson):
        hint = hint.below(path) if path else InJson(hint.column)
    return Plain(kind, piece, sure=value.sure, hint=hint)


def _in_each(value: Plain, take: Callable[[Piece], Piece], path: str = "") -> Plain:
    taken = each(value.piece, take)
    kept = those(taken, lambda x: put("({} IS NOT NULL)", x))
    return _derived_from(value, "many", kept, path)


def _key(x: Piece, name: str) -> Piece:
    """A key of a JSON value, however odd it is; a pointer would also take it for an index."""
    if _SAFE_KEY.match(name):
        return put("json_extract({}, {})", x, parameter(f'$."{name}"'))
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    return put(
        "CASE WHEN json_type({}) = 'OBJECT' THEN json_extract({}, {}) END", x, x, parameter(pointer)
    )


def _at_step(value: Plain, step: core.Step) -> Plain:
    path = ""
    match step:
        case core.Key(name=name):
            if value.kind == "json":
                return _derived_from(value, "json", let(value.piece, lambda x: _key(x, name)))
            return _in_each(value, lambda x: _key(x, name))
        case core.Each():
            found, path = _elements, "[*]"
        case core.Deep(name=name):

            def found(x: Piece) -> Piece:
                return put(
                    "CASE WHEN json_type({}) IN ('ARRAY', 'OBJECT') THEN json_extract({}, {}) END",
                    x,
                    x,
                    parameter(f"$..{name}"),
                )

        case _:
            raise AssertionError(step)
    if value.kind == "json":
        return _derived_from(value, "many", let(value.piece, found), path)
    lists = each(value.piece, lambda x: put("coalesce({}, [])", found(x)))
    return _derived_from(value, "many", put("flatten({})", lists), path)


def _elements(x: Piece) -> Piece:
    return put(
        "CASE json_type({}) WHEN 'ARRAY' THEN {} WHEN 'OBJECT' THEN {} END",
        x,
        items_of(x),
        items_of(x, "$.*"),
    )


__all__ = ["NULL_JSON", "Selector", "below", "message_present", "present"]
