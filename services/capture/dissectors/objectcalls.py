# mypy: ignore-errors
"""Calls whose requests and responses are dicts, as columns. `conversation` makes them.

Keys that have a column of their own in ENTRIES go there, the rest is JSON text. Text is made only
for the rows that are asked for.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from recordings.schema import ENTRIES

Json = dict[str, Any]

# fmt: off
TEXTS = {
    "request": {"method": "request_method", "url": "request_url", "path": "request_path"},
    "response": {"statusText": "response_status_text"},
}
NUMBERS = {"request": {}, "response": {"status": "response_status"}}
for _side in ("request", "response"):
    TEXTS[_side] |= {"httpVersion": f"{_side}_http_version", "body": f"{_side}_body"}
    NUMBERS[_side] |= {"headersSize": f"{_side}_headers_size", "bodySize": f"{_side}_body_size"}
# fmt: on
"""Keys of a message, and their columns, where the value is a text, or a number."""

HEADERS = "headers"
"""Key whose value, a list of pairs of name and value, goes to the column of headers."""
FLAGS = {"bodyTruncated": "body_truncated", "bodyEncoding": "body_base64"}
DEEPEST = 100  # lists in lists: what is deeper is left out
HOT = ("request_method", "request_url", "request_path", "response_status")


class Late(Sequence[Any]):
    """A list in a message that is made when somebody looks at it: most entries are never wanted."""

    def __init__(self, make: Callable[[], list[Any]]) -> None:
        self._make = make

    @functools.cached_property
    def items(self) -> list[Any]:
        """The list."""
        try:
            return self._make()
        except Exception as error:  # it must not end the capture of all others
            return [{"error": f"it could not be read: {type(error).__name__}"}]

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    def __len__(self) -> int:
        return len(self.items)

    def __eq__(self, other: object) -> bool:
        return self.items == (other.items if isinstance(other, Late) else other)

    __hash__ = None


@dataclass(slots=True)
class Exchange:
    """A request and its response, or one of them alone. Values are what JSON can say."""

    start_ns: int
    end_ns: int
    request: Json | None
    response: Json | None
    request_size: int = 0
    response_size: int = 0
    asked_by: int = 0
    """signatures.CLIENT or SERVER: whose the request is."""
    error_type: str | None = None
    error_msg: str | None = None
    version: str = ""

    @property
    def size(self) -> int:
        """Octets on the wire."""
        return self.request_size + self.response_size


class ObjectCalls:
    """Calls of one protocol, made of exchanges."""

    def __init__(
        self, name: str, abbr: str, exchanges: Sequence[Exchange],
        streams: np.ndarray, directions: np.ndarray,
    ) -> None:  # fmt: skip
        """streams: int64; directions: uint8, which one of the stream asked."""
        self.protocol_name, self.protocol_abbr = name, abbr
        self.exchanges = exchanges
        self.streams, self.request_direction = streams, directions
        self.start_ns, self.end_ns = self._numbers("start_ns"), self._numbers("end_ns")
        self.request_size = self._numbers("request_size")
        self.response_size = self._numbers("response_size")
        self.has_request = np.array([e.request is not None for e in exchanges], np.bool_)
        self.has_response = np.array([e.response is not None for e in exchanges], np.bool_)

    def __len__(self) -> int:
        return len(self.exchanges)

    def _numbers(self, name: str) -> np.ndarray:
        return np.array([getattr(each, name) for each in self.exchanges], np.int64)

    def columns(self) -> Mapping[str, Any]:
        """Return how to make each hot column."""
        found: dict[str, Callable[[], Any]] = {
            "error_type": lambda: pa.array([e.error_type for e in self.exchanges], pa.string()),
        }
        for side in ("request", "response"):
            used = self._columns_of(side)
            found |= {
                column: lambda side=side, column=column: self._hot(side, column)
                for column in used if column in HOT
            }  # fmt: skip
            if not used:  # else the text is not the whole message
                found[side] = lambda side=side: lambda rows: self._rest(side, rows)
        return found

    def _messages(self, side: str, rows: np.ndarray | None = None) -> list[Json | None]:
        chosen = self.exchanges if rows is None else [self.exchanges[row] for row in rows.tolist()]
        return [getattr(each, side) for each in chosen]

    def _columns_of(self, side: str) -> set[str]:
        """Columns of their own that messages of this side need."""
        keys = set().union(*(each for each in self._messages(side) if each))
        found = {TEXTS[side][key] for key in keys & TEXTS[side].keys()}
        found |= {
            column for key, column in NUMBERS[side].items()
            if key in keys and any(_number(m, key) is not None for m in self._messages(side))
        }  # fmt: skip
        found |= {f"{side}_headers"} if HEADERS in keys else set()
        return found | {f"{side}_{FLAGS[key]}" for key in keys & FLAGS.keys()}

    def _hot(self, side: str, column: str) -> Any:
        values = self._values(side, column, self._messages(side))
        if column == "response_status":
            return np.array([-1 if each is None else each for each in values], np.int32)
        return pa.array(values, pa.string())

    @staticmethod
    def _values(side: str, column: str, messages: list[Json | None]) -> list[Any]:
        for key, name in TEXTS[side].items():
            if name == column:
                return [_text(each, key) for each in messages]
        for key, name in NUMBERS[side].items():
            if name == column:
                return [_number(each, key) for each in messages]
        if column == f"{side}_headers":
            return [_pairs(each) for each in messages]
        key = next(key for key, name in FLAGS.items() if f"{side}_{name}" == column)
        return [None if not each else bool(each.get(key)) for each in messages]

    def _rest(self, side: str, rows: np.ndarray) -> pa.StringArray:
        return pa.array([_dumped(each, side) for each in self._messages(side, rows)], pa.string())

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """Return the columns that are this protocol's, for the chosen rows (int64)."""
        chosen = [self.exchanges[row] for row in rows.tolist()]
        found = {
            "protocol_version": pa.array([_clean(each.version) for each in chosen], pa.string()),
            "error_type": pa.array([each.error_type for each in chosen], pa.string()),
            "error_msg": pa.array([each.error_msg for each in chosen], pa.string()),
        }
        for side in ("request", "response"):
            messages = self._messages(side, rows)
            found |= {
                column: pa.array(
                    self._values(side, column, messages), ENTRIES.field(column).type
                )
                for column in self._columns_of(side)
            }  # fmt: skip
            found[side] = self._rest(side, rows)
        return found


def _text(message: Json | None, key: str) -> str | None:
    value = message.get(key) if message else None
    return _clean(value) if isinstance(value, str) else None


def _number(message: Json | None, key: str) -> int | None:
    value = message.get(key) if message else None
    return value if type(value) is int and 0 <= value < 1 << 31 else None


def _pairs(message: Json | None) -> list[tuple[str, str]] | None:
    pairs = message.get(HEADERS) if message else None
    if not isinstance(pairs, list):
        return None
    return [(_clean(str(name)), _clean(str(value))) for name, value in pairs]


def _dumped(message: Json | None, side: str) -> str | None:
    """Return the JSON text of what has no column of its own."""
    if message is None:
        return None
    rest = {
        key: value for key, value in message.items()
        if not (key in TEXTS[side] and isinstance(value, str))
        and not (key in NUMBERS[side] and _number(message, key) is not None)
        and not (key == HEADERS and isinstance(value, list)) and key not in FLAGS
    }  # fmt: skip
    return dumped(rest)


def dumped(value: Any) -> str:
    """Return JSON text of anything that a dissector may have read; octets become Latin-1."""
    try:
        return orjson.dumps(value, _items).decode()
    except TypeError:  # octets, keys that are no text, numbers of more than 64 bits, half letters …
        return json.dumps(_plain(value, 0), ensure_ascii=False, separators=(",", ":"))


def _items(value: Any) -> list[Any]:
    if isinstance(value, Late):
        return value.items
    raise TypeError


def _plain(value: Any, depth: int) -> Any:
    """Return what JSON can say of a value."""
    if depth > DEEPEST:
        return None
    if isinstance(value, dict):
        return {_clean(str(key)): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset | Late):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("latin-1")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int) else _clean(str(value))


def _clean(text: str) -> str:
    """Return a text that UTF-8 can say: without halves of surrogate pairs."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
