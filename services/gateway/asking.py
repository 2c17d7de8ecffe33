"""Requests of HTTP as messages of the protos. Called by gateway.

Names of fields are those of proto's JSON (startTime) or of the protos themselves (start_time).
What is below a field `question` can be said without that word: kfl for question.kfl.
https://protobuf.dev/programming-guides/json/
"""

import re
from typing import Any
from urllib.parse import parse_qsl

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.gateway.problems import ProblemError
from services.gateway.routes import WHOLE, Route

MAX_PARAMETERS = 64
"""Parameters of one request: more than any request has fields."""

MAX_DEPTH = 32
"""Messages and values in one another, in a body: no request has more than four."""

_QUESTION = "question"

_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")

MAX_SENTENCE = 300
"""Characters of what json_format says that are passed on: it quotes what was sent."""

_FAILED = re.compile(r"Failed to parse (\w+) field: (.*)")
_UNKNOWN = re.compile(r'has no field named "([^"]{0,64})')
_PLACE = re.compile(r" at \w+(\.\w+)*\.?$")

_SAID = {
    "invalid literal for int": "Write a whole number",
    "Couldn't parse": "Write a whole number",
    "could not convert string to float": "Write a number",
    "expected string": "Write text",
    "Expected true or false": "Write true or false",
    "Failed to parse timestamp": "Write a time as in 2026-01-31T08:45:00Z",
    "Timestamp JSON value": "Write a time as in 2026-01-31T08:45:00Z",
}
"""What people read instead of what Python and json_format say."""

Fields = dict[str, Any]


def read(route: Route, values: dict[str, str], query: bytes, body: bytes) -> Message:
    """Return the request: `values` from the path, the parameters, and a body of JSON or nothing.

    Raises ProblemError.
    """
    message: Message = GetMessageClass(route.rpc.input_type)()
    fields: Fields = {}
    if route.body:
        if query:
            raise ProblemError(
                400, f"{route.method} takes its fields from the body, and no parameters."
            )
        given = _json(body)
        fields = given if route.body == WHOLE else {route.body: given}
    else:
        _add_parameters(fields, query, route.rpc.input_type)
    for name in route.parameters:
        if name in fields:
            raise ProblemError(400, f"{name}: it is in the path already.", field=name)
        fields[name] = values[name]
    _check_words(fields, route.rpc.input_type)
    try:
        ParseDict(fields, message, max_recursion_depth=MAX_DEPTH)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _problem(error) from None
    return message


def _check_words(fields: Fields, descriptor: Descriptor) -> None:
    """Let enums be their words: json_format takes numbers, true and false too.

    Messages of requests are not in themselves, so this ends. Raises ProblemError.
    """
    for name, value in fields.items():
        field = _field(descriptor, name)
        if field is None:
            continue
        if field.enum_type is not None:
            words = field.enum_type.values_by_name
            for word in value if isinstance(value, list) else [value]:
                if word is not None and not (isinstance(word, str) and word in words):
                    raise ProblemError(400, f"{name}: Write one of {', '.join(words)}.", field=name)
        if is_nested(field) and isinstance(value, dict):
            _check_words(value, message_of(field))


def _json(body: bytes) -> Fields:
    try:
        found = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ProblemError(400, "The body is to be a JSON object.")
    return found


def _add_parameters(fields: Fields, query: bytes, descriptor: Descriptor) -> None:
    try:
        given = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except UnicodeDecodeError:
        raise ProblemError(400, "The parameters are not UTF-8.") from None
    except ValueError:
        raise ProblemError(400, f"There are more than {MAX_PARAMETERS} parameters.") from None
    for name, text in given:
        _add(fields, name, text, descriptor)


def _add(fields: Fields, name: str, text: str, descriptor: Descriptor) -> None:
    """Add one parameter, such as before.kfl, where it belongs."""
    *way, last = path_of(name, descriptor)
    for field in way:
        fields = fields.setdefault(field.json_name, {})
    value = _value(last, name, text)
    if last.is_repeated:
        fields.setdefault(last.json_name, []).append(value)
    elif last.json_name in fields:
        raise ProblemError(400, f"{name}: it is there twice.", field=name)
    else:
        fields[last.json_name] = value


def path_of(name: str, descriptor: Descriptor) -> list[FieldDescriptor]:
    """Return the fields that lead to a parameter, its own the last. Raises ProblemError."""
    found: list[FieldDescriptor] = []
    # No name has more dots than messages can be in one another.
    for word in name.split(".", MAX_DEPTH):
        if found:
            if not is_nested(found[-1]):
                raise _no_parameter(name)
            descriptor = message_of(found[-1])
        field = _field(descriptor, word)
        if field is None and (question := descriptor.fields_by_name.get(_QUESTION)):
            found.append(question)
            field = _field(message_of(question), word)
        if field is None:
            raise _no_parameter(name)
        found.append(field)
    if is_nested(found[-1]):
        raise _no_parameter(name)
    return found


def _field(descriptor: Descriptor, word: str) -> FieldDescriptor | None:
    by_json = descriptor.fields_by_camelcase_name.get(word)
    found: FieldDescriptor | None = by_json or descriptor.fields_by_name.get(word)
    return found


def message_of(field: FieldDescriptor) -> Descriptor:
    """Return the type of a field that is a message."""
    assert field.message_type is not None
    return field.message_type


def is_nested(field: FieldDescriptor) -> bool:
    """Tell whether a field is a message that has parameters of its own; a time has none."""
    kind = field.message_type
    return kind is not None and kind.full_name != "google.protobuf.Timestamp"


def _no_parameter(name: str) -> ProblemError:
    return ProblemError(400, f"{name[:64]}: there is no such parameter.", field=name[:64])


def _value(field: FieldDescriptor, name: str, text: str) -> Any:
    if field.type != FieldDescriptor.TYPE_BOOL:
        return text
    if text not in ("true", "false"):
        raise ProblemError(400, f"{name}: write true or false.", field=name)
    return text == "true"


def _problem(error: Exception) -> ProblemError:
    """Return what json_format says of a request, in a line."""
    if isinstance(error, RecursionError):
        return ProblemError(400, f"The body has more than {MAX_DEPTH} objects in one another.")
    text, way = (str(error).splitlines() or [""])[0], []
    while found := _FAILED.fullmatch(text):
        way.append(found[1])
        text = found[2]
    if found := _UNKNOWN.search(text):
        way.append(found[1])
        text = "There is no such field."
    field = ".".join(way)
    text = next((said for begin, said in _SAID.items() if text.startswith(begin)), text)
    text = _PLACE.sub("", text)[:MAX_SENTENCE].rstrip(".")
    return ProblemError(400, f"{field}: {text}." if field else f"{text}.", field=field)


def read_timeout(text: str) -> float | None:
    """Return the seconds that a Grpc-Timeout such as 10S or 500m asks for; None when it is empty.

    https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests. Raises ProblemError.
    """
    if not text:
        return None
    found = _TIMEOUT.fullmatch(text)
    if found is None or not int(found[1]):
        raise ProblemError(400, f"Grpc-Timeout: {text[:32]!r} is not a time; write 10S or 500m.")
    return int(found[1]) * _SECONDS[found[2]]
