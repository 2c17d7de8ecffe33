"""Read requests and responses as `schemas` says, each as a dict with Kafka's names in camelCase.

A schema is compiled when it is first needed, for its version: a list of steps, where numbers that
follow each other are read at once.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from services.capture.dissectors.conversation import DEFAULT_BODY
from services.capture.dissectors.kafka.records import read_records
from services.capture.dissectors.kafka.schemas import SCHEMAS
from services.capture.dissectors.kafka.values import IncompleteError, Octets, Reader

Target: TypeAlias = dict[str, Any]
Step: TypeAlias = Callable[[Reader, Target], None]

REQUEST, RESPONSE = ">", "<"
API_VERSIONS = 18
UNSUPPORTED_VERSION = b"\0\x23"  # as an error code
LATEST = 1 << 15  # behind all versions

_NUMBERS = {
    "bool": "?", "i8": "b", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "f64": "d",
}  # fmt: skip


def _number(form: str) -> Callable[[Reader], Any]:
    packed = struct.Struct(">" + form)
    return lambda reader: packed.unpack_from(reader.data, reader.skip(packed.size))[0]


_VALUES: dict[str, Callable[[Reader], Any]] = {
    "str": Reader.text,
    "bytes": Reader.octets_or_none,
    "uuid": Reader.uuid,
    "secret": Reader.secret,
    "records": read_records,
    **{name: _number(form) for name, form in _NUMBERS.items()},
}
_SECRET_WORDS = "password", "secret", "jaas", "credential", "token"

_NAMES_ALONE = (
    "4 LeaderAndIsr 5 StopReplica 6 UpdateMetadata 7 ControlledShutdown 52 Vote 53 BeginQuorumEpoch"
    " 54 EndQuorumEpoch 56 AlterPartition 58 Envelope 59 FetchSnapshot 62 BrokerRegistration"
    " 63 BrokerHeartbeat 64 UnregisterBroker 67 AllocateProducerIds 70 ControllerRegistration"
    " 73 AssignReplicasToDirs 80 AddRaftVoter 81 RemoveRaftVoter 82 UpdateRaftVoter"
    " 83 InitializeShareGroupState 84 ReadShareGroupState 85 WriteShareGroupState"
    " 86 DeleteShareGroupState 87 ReadShareGroupStateSummary 90 DescribeShareGroupOffsets"
    " 91 AlterShareGroupOffsets 92 DeleteShareGroupOffsets"
)  # what brokers ask each other, mostly: their headers are read, and nothing else


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct, in the versions that have it."""

    name: str
    kind: str
    """Of _VALUES; or "struct"."""
    is_list: bool
    may_be_null: bool
    tag: int | None
    first: int
    last: int
    fields: tuple["Field", ...]


@dataclass(frozen=True, slots=True)
class Api:
    """A kind of request."""

    name: str
    last: int
    """Highest version that is known, -1 where none is."""
    first_flexible: int
    fields: dict[str, tuple[Field, ...]]
    """Of REQUEST and of RESPONSE."""


def _parsed() -> dict[int, Api]:
    alone = _NAMES_ALONE.split()
    apis = {
        int(key): Api(name, -1, LATEST, {})
        for key, name in zip(alone[::2], alone[1::2], strict=True)
    }
    for block in re.split(r"\n(?=\d)", SCHEMAS.strip()):
        head, request, response = re.split(r"\n [><] ?", block)
        key, name, last, *flexible = head.split()
        fields = {
            REQUEST: tuple(_fields(iter(request.split()))),
            RESPONSE: tuple(_fields(iter(response.split()))),
        }
        apis[int(key)] = Api(name, int(last), int(flexible[0]) if flexible else LATEST, fields)
    return apis


def _fields(words: Iterator[str]) -> Iterator[Field]:
    """Yield the fields up to the bracket that closes them."""
    ahead = next(words, None)
    while ahead is not None and ahead not in "]}":
        word, ahead = ahead, next(words, None)
        fields: tuple[Field, ...] = ()
        bracket = ahead
        if bracket is not None and bracket in "[{":
            fields, ahead = tuple(_fields(words)), next(words, None)
        yield _field(word, bracket == "[", fields)


def _field(word: str, is_list: bool, fields: tuple[Field, ...]) -> Field:
    word, _, versions = word.partition("@")
    word, _, tag = word.partition("#")
    may_be_null = word.endswith("?")
    name, _, kind = word.rstrip("?").partition(":")
    first, dash, last = versions.rstrip("+").partition("-")
    if versions.endswith("+") or not versions:
        end = LATEST
    else:
        end = int(last) if dash else int(first)
    return Field(
        name, kind.removeprefix("[]") or "struct", is_list or kind.startswith("[]"), may_be_null,
        int(tag) if tag else None, int(first or 0), end, fields,
    )  # fmt: skip


APIS = _parsed()
"""By their keys."""


def is_known(key: int, version: int) -> bool:
    """Whether the payload of such a request can be read."""
    api = APIS.get(key)
    return api is not None and 0 <= version <= api.last


def read_payload(
    side: str,
    key: int,
    version: int,
    data: Octets,
    at: int,
    end: int,
    body_limit: int = DEFAULT_BODY,
) -> tuple[Target, Reader, IncompleteError | None]:
    """Read what follows the fixed part of the header; `is_known`. Return the fields, where the
    reader stopped and what it saw, and why it stopped before the end, if so. body_limit: octets of
    records that are read.
    """
    flexible = APIS[key].first_flexible <= version
    reader = Reader(data, at, end, flexible)
    reader.body_limit = body_limit
    is_about_versions = side == RESPONSE and key == API_VERSIONS
    if is_about_versions and data[at : at + 2] == UNSUPPORTED_VERSION:
        # Whatever was asked for, this is said as in version 0 (KIP-511); what follows differs.
        reader.code = reader.i16()
        return {"errorCode": reader.code}, reader, None
    payload: Target = {}
    try:
        if flexible and not is_about_versions:
            reader.tags({}, {})
        _struct(side, key, version)(reader, payload)
    except IncompleteError as error:
        return payload, reader, error
    return payload, reader, None


@cache
def _struct(side: str, key: int, version: int) -> Step:
    api = APIS[key]
    return _compiled(api.fields[side], version, version >= api.first_flexible)


def _compiled(fields: tuple[Field, ...], version: int, flexible: bool) -> Step:
    steps: list[Step] = []
    tags: dict[int, Step] = {}
    numbers: list[Field] = []
    for field in fields:
        if not field.first <= version <= field.last:
            continue
        if field.tag is not None and flexible:
            tags[field.tag] = _step(field, version, flexible)
        elif field.kind in _NUMBERS and not field.is_list:
            numbers.append(field)
        else:
            steps += _numbers(numbers)
            numbers = []
            steps.append(_step(field, version, flexible))
    steps += _numbers(numbers)
    if flexible:
        steps.append(lambda reader, target: reader.tags(tags, target))

    def read(reader: Reader, target: Target) -> None:
        for step in steps:
            step(reader, target)

    return steps[0] if len(steps) == 1 else read


def _numbers(fields: list[Field]) -> list[Step]:
    """Return the step that reads numbers which follow each other, none for none."""
    if not fields:
        return []
    packed = struct.Struct(">" + "".join(_NUMBERS[each.kind] for each in fields))
    names = tuple(each.name for each in fields)
    codes = tuple(name for name in names if name.endswith(("errorCode", "ErrorCode")))

    def read(reader: Reader, target: Target) -> None:
        values = packed.unpack_from(reader.data, reader.skip(packed.size))
        target.update(zip(names, values, strict=True))
        if codes and reader.code == 0:
            reader.code = next((target[name] for name in codes if target[name]), 0)

    return [read]


def _step(field: Field, version: int, flexible: bool) -> Step:
    if field.kind == "config":
        return _config(field.name)
    if field.kind != "struct":
        return _list_of(field) if field.is_list else _value(field)
    name, inner = field.name, _compiled(field.fields, version, flexible)
    if field.is_list:

        def read(reader: Reader, target: Target) -> None:
            count = reader.count()
            found: list[Target] | None = None if count < 0 else []
            target[name] = found
            for _ in range(count):
                reader.take_room()
                item: Target = {}
                found.append(item)  # type: ignore[union-attr]
                inner(reader, item)

    else:

        def read(reader: Reader, target: Target) -> None:
            if field.may_be_null and reader.data[reader.skip(1)] & 0x80:
                target[name] = None
                return
            item: Target = {}
            target[name] = item
            inner(reader, item)

    return read


def _value(field: Field) -> Step:
    name, value = field.name, _VALUES[field.kind]

    def read(reader: Reader, target: Target) -> None:
        target[name] = value(reader)

    return read


def _list_of(field: Field) -> Step:
    name, value = field.name, _VALUES[field.kind]

    def read(reader: Reader, target: Target) -> None:
        count = reader.count()
        found: list[Any] | None = None if count < 0 else []
        target[name] = found
        for _ in range(count):
            reader.take_room()
            found.append(value(reader))  # type: ignore[union-attr]

    return read


def _config(name: str) -> Step:
    def read(reader: Reader, target: Target) -> None:
        value = reader.text()
        setting = str(target.get("name")).lower()
        is_secret = value is not None and any(word in setting for word in _SECRET_WORDS)
        target[name] = "[redacted]" if is_secret else value

    return read
