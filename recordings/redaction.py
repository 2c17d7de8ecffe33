"""redact("path"): hides values in entries. Capture calls it before anything leaves the node, the
query service before anything is returned.

The same value stands in several places of an entry: a cookie in its map and in its header, a query
string in its map and in the target. Hidden in one place it could be read in another, so all are.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kfl import ast
from kfl.parse import parse
from recordings import schema
from recordings.copies import COLUMNS, COOKIES, COPIES, MESSAGES, PARTS, PEER_NAMES, PEERS
from recordings.redactedtext import (
    JSON_REDACTED,
    REDACTED,
    Decoded,
    Steps,
    Target,
    Wanted,
    any_of,
    edit,
    edit_cookies,
    edit_json,
    item,
    member,
)

__all__ = ["REDACTED", "Redactions"]

Change = Callable[[pa.Table], pa.Table]


class Redactions:
    """The redactions of one statement."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Take paths as Filter.redactions gives them. Raises KflError for what is no path."""
        self._wanted: Wanted = tuple(_steps(parse(text).tree) for text in paths)
        self._add_copies()
        self._sides = {side: self._at(side) for side in MESSAGES}
        self._headers = {side: self._at(side, "headers") for side in MESSAGES}
        self._cookies = {side: self._at(side, "cookies") for side in MESSAGES}
        self._target = Target(
            self._at("request", "path"),
            self._at("request", "pathSegments"),
            self._at("request", "queryString"),
        )
        self._hidden_names = {
            peer: [name for name in PEER_NAMES if self.hides(f"{peer}_{name}")] for peer in PEERS
        }
        # Bodies before headers, which say how they are coded; names before they are hidden.
        self._changes = [
            change
            for make in (self._change_of_names, self._change_of_bodies, self._change_of_column)
            for name in COLUMNS
            if (change := make(name)) is not None
        ]

    def hides(self, *columns: str) -> bool:
        """Say whether one of these columns of ENTRIES is hidden in every row."""
        return any(() in self._at(*place) for name in columns for place in COLUMNS[name])

    def _add_copies(self) -> None:
        """Name the copies of what is named, and the copies of these."""
        found = True
        while found:
            found = False
            for hidden, copy in COPIES:
                if () in self._at(*hidden) and () not in self._at(*copy):
                    self._wanted += (tuple(map(ast.Key, copy)),)
                    found = True
        # Where in a part the value is that is hidden in the whole, nobody looks.
        self._wanted += tuple(
            tuple(map(ast.Key, part)) for whole, part in PARTS if self._at(*whole)
        )

    def _at(self, *place: str) -> Wanted:
        """What is named, seen from a place of an entry."""
        wanted = self._wanted
        for depth, key in enumerate(place):
            is_header = depth == 2 and place[0] in MESSAGES and place[1] == "headers"
            wanted = member(wanted, key, fold=is_header)
            if is_header:
                wanted = any_of(wanted)
        return wanted

    # ------------------------------------------------------------------ entries as JSON

    def apply(self, entry: dict[str, Any]) -> None:
        """Replace the values in the JSON object of an entry."""
        for peer in PEERS:
            if self._hidden_names[peer] and isinstance(entry.get(peer), dict):
                self._hide_same_names(entry[peer], self._hidden_names[peer])
        for key, value in entry.items():
            wanted = member(self._wanted, key)
            if key in MESSAGES and isinstance(value, dict) and () not in wanted:
                if wanted:
                    self._apply_to_message(value, key)
            else:
                entry[key] = _redacted(value, wanted)

    def _hide_same_names(self, peer: dict[str, Any], hidden: list[str]) -> None:
        holders = [
            (peer, name) if name in ("name", "dns") else (peer.get(name), "name")
            for name in PEER_NAMES
        ]
        found = {
            name: (holder, key)
            for name, (holder, key) in zip(PEER_NAMES, holders, strict=True)
            if isinstance(holder, dict) and isinstance(holder.get(key), str) and holder[key]
        }
        texts = {holder[key] for name, (holder, key) in found.items() if name in hidden}
        for holder, key in found.values():
            if holder[key] in texts:
                holder[key] = REDACTED

    def _apply_to_message(self, message: dict[str, Any], side: str) -> None:
        is_partial = message.get("bodyTruncated") is True
        if message.get("bodyEncoding") == "base64":
            is_partial |= _is_compressed(message.get("headers"))
        for key, value in list(message.items()):
            wanted = member(self._sides[side], key)
            if key == "cookies" and value == {}:
                continue  # a header that is no cookie may be hidden all the same
            if () in wanted:
                message[key] = _redacted(value, wanted)
            elif key == "headers" and isinstance(value, dict):
                for name, text in value.items():
                    value[name] = self._header(side, name, text)
            elif key in ("cookies", "queryString") and isinstance(value, dict):
                for name, text in value.items():
                    value[name] = _each(text, any_of(member(wanted, name)))
            elif key in ("url", "path") and side == "request" and isinstance(value, str):
                message[key] = edit(self._target.edit(value), wanted)
            elif key == "body" and isinstance(value, str):
                message[key] = edit(value, wanted, is_partial)
            else:
                message[key] = _redacted(value, wanted)
        if message.get("body") == REDACTED:
            message.pop("bodyEncoding", None)

    def _header(self, side: str, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._header(side, name, each) for each in value]
        wanted = any_of(member(self._headers[side], name, fold=True))
        if not isinstance(value, str):
            return _redacted(value, wanted)
        if name.lower() == COOKIES[side]:
            value = edit_cookies(value, self._cookies[side], side == "response")
        elif side == "request" and name == ":path":
            value = edit(self._target.edit(value), self._at("request", "url"))
        return edit(value, wanted)

    # ------------------------------------------------------------------ entries as columns

    def apply_to_table(self, table: pa.Table) -> pa.Table:
        """Return ENTRIES with the values replaced; what is not text becomes null, or 0.

        Columns that are not there are left out, those that ENTRIES does not have stay.
        """
        for change in self._changes:
            table = change(table)
        return table

    def apply_to_streams(self, table: pa.Table) -> pa.Table:
        """Return STREAMS without the addresses and ports that are hidden in entries."""
        for part in ("ip", "port"):
            if self.hides(f"src_{part}", f"dst_{part}"):
                for end in ("client", "server", "called", "seen"):
                    table = _put(table, f"{end}_{part}", _nothing)
        return table

    def _change_of_names(self, name: str) -> Change | None:
        """Where a name of a peer is hidden, so is the same name in another column of it."""
        peer, _, part = name.partition("_")
        hidden = self._hidden_names.get(peer, [])
        if part not in PEER_NAMES or part in hidden or not hidden:
            return None
        others = [f"{peer}_{other}" for other in hidden]
        return lambda table: _put(table, name, lambda column, _: _hide_same(column, table, others))

    def _change_of_bodies(self, name: str) -> Change | None:
        side, _, part = name.partition("_")
        wanted = self._at(side, "body")
        if side not in MESSAGES or part != "body" or not wanted:
            return None
        return lambda table: _edit_bodies(table, side, wanted)

    def _change_of_column(self, name: str) -> Change | None:
        side, _, part = name.partition("_")
        wanted = self._at(*COLUMNS[name][0])
        if side in MESSAGES and part == "body":
            return None
        if side in MESSAGES and part == "headers":
            if () in wanted:
                return lambda table: _put(table, name, _no_headers)
            if not (wanted or self._cookies[side] or self._target.is_named):
                return None
            change = functools.partial(self._edit_headers, side)
            return lambda table: _put(table, name, change)
        is_json = name in MESSAGES or part == "labels"
        if self.hides(name):
            hide = functools.partial(_nothing, text=JSON_REDACTED if is_json else REDACTED)
            return lambda table: _put(table, name, hide)
        one = edit_json if is_json else edit
        if name in ("request_url", "request_path") and self._target.is_named:

            def one(text: str, wanted: Wanted) -> str:
                return edit(self._target.edit(text), wanted)
        elif not wanted or not pa.types.is_string(schema.ENTRIES.field(name).type):
            return None
        return lambda table: _put(
            table, name, lambda column, field: _mapped(column, field, lambda t: one(t, wanted))
        )

    def _edit_headers(self, side: str, column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
        chunks = [self._edit_header_lists(side, chunk) for chunk in column.chunks]
        return pa.chunked_array(chunks, field.type)

    def _edit_header_lists(self, side: str, lists: pa.ListArray) -> pa.ListArray:
        names, values = lists.flatten().flatten()
        coded = names.fill_null("").dictionary_encode()
        texts = coded.dictionary.to_pylist()
        named = np.array([self._names_header(side, text) for text in texts], bool)
        mask = named[coded.indices.to_numpy()] if len(texts) else np.zeros(0, bool)
        mask &= values.is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(mask)
        changed = [
            self._header(side, texts[coded.indices[row].as_py()], values[row].as_py())
            for row in rows.tolist()
        ]
        values = pc.replace_with_mask(values, pa.array(mask), pa.array(changed, pa.string()))
        offsets = np.zeros(len(lists) + 1, np.int32)
        np.cumsum(pc.list_value_length(lists).fill_null(0).to_numpy(), out=offsets[1:])
        pairs = pa.StructArray.from_arrays([names, values], fields=list(lists.type.value_type))
        return pa.ListArray.from_arrays(
            pa.array(offsets), pairs, type=lists.type, mask=lists.is_null()
        )

    def _names_header(self, side: str, name: str) -> bool:
        """Say whether something in the value of a header is named."""
        if name.lower() == COOKIES[side] and self._cookies[side]:
            return True
        if name == ":path" and self._target.is_named:
            return True
        return bool(member(self._headers[side], name, fold=True))


def _steps(node: ast.Node) -> Steps:
    """Return the way that a path of redact() goes. json() and xml() at its end mean the text."""
    steps: Steps = ()
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Path):
            steps = (*node.steps, *steps)
            node = node.base
        elif isinstance(node, ast.Call) and node.receiver is not None:
            steps = (Decoded(node.name), *steps) if steps else ()
            node = node.receiver
        else:
            raise ValueError("a filter gives only paths to redact")
    return (ast.Key(node.word), *steps)


def _redacted(value: Any, wanted: Wanted) -> Any:
    """Return a value of JSON with what is named in it replaced; maps and lists are changed."""
    if not wanted or value is None:
        return value
    if () in wanted:
        return REDACTED
    if isinstance(value, str):
        return edit(value, wanted)
    waiting = [(value, wanted)]  # no recursion, since entries from elsewhere may nest deep
    while waiting:
        holder, named = waiting.pop()
        if isinstance(holder, dict):
            below = [(key, member(named, key)) for key in holder]
        elif isinstance(holder, list):
            below = [(number, item(named, number)) for number in range(len(holder))]
        else:
            continue
        for key, after in below:
            if () in after or isinstance(holder[key], str):
                holder[key] = _redacted(holder[key], after)
            elif after:
                waiting.append((holder[key], after))
    return value


def _each(value: Any, wanted: Wanted) -> Any:
    """The same for the value of a cookie or of a query, which is a list where it came often."""
    if isinstance(value, list):
        return [_redacted(each, wanted) for each in value]
    return _redacted(value, wanted)


def _is_compressed(headers: Any) -> bool:
    """Say whether a message's headers, as a map or as a list of name and value, tell a coding."""
    if isinstance(headers, dict):
        pairs = list(headers.items())
    else:
        pairs = [(header["name"], header["value"]) for header in headers or ()]
    return any(
        str(name).lower() == "content-encoding" and str(value).strip().lower() != "identity"
        for name, value in pairs
    )


# ---------------------------------------------------------------------------------- columns

ColumnChange = Callable[[pa.ChunkedArray, pa.Field], pa.ChunkedArray]


def _put(table: pa.Table, name: str, change: ColumnChange) -> pa.Table:
    """Return a table with one column changed, if it has that column."""
    index = table.schema.get_field_index(name)
    if index < 0:
        return table
    field = table.schema.field(index)
    return table.set_column(index, field, change(table.column(index), field))


def _nothing(column: pa.ChunkedArray, field: pa.Field, text: str = REDACTED) -> pa.ChunkedArray:
    if pa.types.is_string(field.type):
        return pc.if_else(column.is_valid(), pa.scalar(text), pa.scalar(None, pa.string()))
    empty = pa.scalar(None, field.type) if field.nullable else pa.scalar(0).cast(field.type)
    return pa.chunked_array([pa.repeat(empty, len(column))], field.type)


def _no_headers(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """One header stands for all: their names are hidden too."""
    one = [{"name": REDACTED, "value": REDACTED}]
    values = [one if valid else None for valid in column.is_valid().to_pylist()]
    return pa.chunked_array([pa.array(values, field.type)])


def _mapped(
    column: pa.ChunkedArray, field: pa.Field, change: Callable[[str], str]
) -> pa.ChunkedArray:
    values = [None if text is None else change(text) for text in column.to_pylist()]
    return pa.chunked_array([pa.array(values, field.type)])


def _hide_same(column: pa.ChunkedArray, table: pa.Table, others: list[str]) -> pa.ChunkedArray:
    for name in others:
        if name in table.column_names:
            same = pc.and_(pc.equal(column, table[name]), pc.not_equal(column, ""))
            column = pc.if_else(same.fill_null(False), pa.scalar(REDACTED), column)
    return column


def _edit_bodies(table: pa.Table, side: str, wanted: Wanted) -> pa.Table:
    """Edit bodies; one that is replaced as a whole is base64 no more."""
    if f"{side}_body" not in table.column_names:
        return table
    names = [f"{side}_{part}" for part in ("body", "body_base64", "body_truncated")]
    bodies, packed, truncated = (_list_of(table, name) for name in names)
    for row, body in enumerate(bodies):
        if body is None:
            continue
        is_partial = bool(truncated[row])
        if packed[row] and not is_partial and f"{side}_headers" in table.column_names:
            is_partial = _is_compressed(table[f"{side}_headers"][row].as_py())
        bodies[row] = edit(body, wanted, is_partial)
        if bodies[row] == REDACTED and packed[row]:
            packed[row] = False
    for name, values in zip(names[:2], (bodies, packed), strict=True):
        new = pa.chunked_array([pa.array(values, schema.ENTRIES.field(name).type)])
        table = _put(table, name, lambda _, __, new=new: new)  # type: ignore[misc]
    return table


def _list_of(table: pa.Table, name: str) -> list[Any]:
    return table[name].to_pylist() if name in table.column_names else [None] * table.num_rows
