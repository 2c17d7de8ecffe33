"""The OpenAPI 3.1 document, made of the routes, the protos and their comments. Called by gateway.

https://spec.openapis.org/oas/v3.1.1.html; values are as proto's JSON has them.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.gateway.answers import ARROW, EVENTS, JSON, LINES, forms
from services.gateway.asking import MAX_DEPTH, is_nested, message_of
from services.gateway.comments import comments
from services.gateway.problems import MEDIA_TYPE
from services.gateway.routes import DOCUMENT, HEALTH, JOBS, QUERY, ROUTES, WHOLE, Route

Schema = dict[str, Any]

_INT32 = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_UINT32 = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
# Numbers of 64 bits are text, since JavaScript would round them.
_INT64 = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,18}$"}
_UINT64 = {"type": "string", "format": "uint64", "pattern": "^([0-9]{1,19}|1[0-9]{19})$"}

_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number"},
}

_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Struct": {"type": "object"},
}

_STREAMS = {
    LINES: "As x-ndjson it is one in each line; when it cannot be finished, the last has `error`.",
    EVENTS: "As event-stream it is the data of events named after what they have, before `end` or "
    "`error`.",
    ARROW: "As an Arrow stream it is the entries alone. The last batch has no rows, and "
    "metadata `recorder`: JSON with status, losses and counts.",
}

_EVENT: Schema = {
    "type": "object",
    "required": ["data", "event"],
    "properties": {
        "event": {"type": "string"},
        "id": {"type": "string"},
        "data": {"type": "string", "contentMediaType": JSON},
    },
}

_PROBLEM: Schema = {
    "type": "object",
    "description": "What is wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "description": "Status of HTTP."},
        "detail": {"type": "string", "description": "What is wrong and what would be right."},
        "code": {"type": "string", "description": "Name of google.rpc.Code."},
        "violations": {
            "type": "array",
            "description": "Fields of the request that are wrong.",
            "items": {
                "type": "object",
                "required": ["field", "description"],
                "properties": {"field": {"type": "string"}, "description": {"type": "string"}},
            },
        },
    },
}


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return orjson.dumps(build(ROUTES), option=orjson.OPT_INDENT_2)


def build(routes: Iterable[Route]) -> Schema:
    """Return the document for some routes."""
    schemas = _Schemas()
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.address, {})[route.method.lower()] = _operation(route, schemas)
    paths[DOCUMENT] = {"get": _page("OpenApi", "This document.")}
    health = _page("Health", "Whether the services behind this server serve.")
    health["responses"]["503"] = _json("One does not.", {"type": "object"})
    paths[HEALTH] = {"get": health}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Traffic Recorder",
            "version": version("traffic-recorder"),
            "description": "What the scheduler and the query service say over gRPC, over HTTP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [
            {"name": each.name, "description": comments()[each.full_name]} for each in (JOBS, QUERY)
        ],
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, **dict(sorted(schemas.found.items()))},
            "responses": {
                "Problem": {
                    "description": "Something is wrong.",
                    "content": {MEDIA_TYPE: {"schema": _reference("Problem")}},
                }
            },
        },
    }


def _page(name: str, summary: str) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": _json("It is so.", {"type": "object"}),
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }


def _operation(route: Route, schemas: "_Schemas") -> Schema:
    comment = comments()[route.rpc.full_name]
    twice = sum(each.rpc is route.rpc for each in ROUTES) > 1
    found: Schema = {
        "operationId": route.rpc.name + ("ByPost" if twice and route.method == "POST" else ""),
        "tags": [route.rpc.containing_service.name],
        "summary": comment.partition(". ")[0].rstrip(".") + ".",
        "description": comment,
        "responses": {
            str(route.status): _answer(route, schemas),
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    parameters = [_in_path(name, route, schemas) for name in route.parameters]
    if route.body:
        found["requestBody"] = {
            "required": route.body != WHOLE,
            "content": {JSON: {"schema": _body(route, schemas)}},
        }
    else:
        parameters += _in_query(route, schemas)
    if parameters:
        found["parameters"] = parameters
    return found


def _answer(route: Route, schemas: "_Schemas") -> Schema:
    schema = schemas.of_message(route.rpc.output_type)
    about = comments()[route.rpc.output_type.full_name]
    if not route.rpc.server_streaming:
        return _json(about, schema)
    if route.rpc.name == "Export":
        # As octets; proto's JSON of its messages is nowhere.
        return {"description": "The file.", "content": {each: {} for each in forms("Export")}}
    # OpenAPI 3.1 has no word for the items of a stream; they stand where 3.2 has `itemSchema`.
    items = {LINES: schema, EVENTS: _EVENT}
    content = {each: {"schema": items.get(each, {})} for each in forms(route.rpc.name)}
    about = " ".join([about, *(_STREAMS[each] for each in content if each in _STREAMS)])
    return {"description": about, "content": content}


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _body(route: Route, schemas: "_Schemas") -> Schema:
    if route.body != WHOLE:
        return schemas.of_message(message_of(route.rpc.input_type.fields_by_name[route.body]))
    fields = [field for field in route.rpc.input_type.fields if field.name not in route.parameters]
    return {
        "type": "object",
        "description": comments()[route.rpc.input_type.full_name],
        "properties": {field.json_name: schemas.of_field(field) for field in fields},
    }


def _in_path(name: str, route: Route, schemas: "_Schemas") -> Schema:
    field = route.rpc.input_type.fields_by_name[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": comments()[field.full_name],
        "schema": {**schemas.of_type(field), "minLength": 1},
    }


def _in_query(route: Route, schemas: "_Schemas") -> list[Schema]:
    return [
        {
            "name": name,
            "in": "query",
            "description": comments()[field.full_name],
            "schema": schemas.of_field(field, with_comment=False),
        }
        for name, field in _leaves(route.rpc.input_type, "")
        if field.name not in route.parameters
    ]


def _leaves(
    message: Descriptor, prefix: str, depth: int = MAX_DEPTH
) -> Iterator[tuple[str, FieldDescriptor]]:
    """Yield what parameters a message has, by the shortest name that asking takes."""
    for field in message.fields:
        if not is_nested(field):
            yield prefix + field.json_name, field
        elif depth:
            below = prefix if field.name == "question" else f"{prefix}{field.json_name}."
            yield from _leaves(message_of(field), below, depth - 1)


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


class _Schemas:
    """Schemas of messages and enums, collected as they are referred to."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}

    def of_message(self, message: Descriptor) -> Schema:
        if message.full_name in _KNOWN:
            return dict(_KNOWN[message.full_name])
        if message.name not in self.found:
            made: Schema = {"type": "object", "description": comments()[message.full_name]}
            self.found[message.name] = made
            made["properties"] = {field.json_name: self.of_field(field) for field in message.fields}
        return _reference(message.name)

    def of_field(self, field: FieldDescriptor, with_comment: bool = True) -> Schema:
        """Return the schema of a field: a value, a list, or a map."""
        schema = self.of_type(field)
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            values = self.of_field(kind.fields_by_name["value"], with_comment=False)
            schema = {"type": "object", "additionalProperties": values}
        elif field.is_repeated:
            schema = {"type": "array", "items": schema}
        if with_comment:
            schema["description"] = comments()[field.full_name]
        return schema

    def of_type(self, field: FieldDescriptor) -> Schema:
        """Return the schema of one value of a field."""
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                return {}
            return self.of_message(field.message_type)
        if field.enum_type is not None:
            return self._of_enum(field.enum_type)
        return dict(_SCALARS[field.type])

    def _of_enum(self, enum: EnumDescriptor) -> Schema:
        about = comments()
        values = [f"{v.name}: {about[f'{enum.full_name}.{v.name}']}" for v in enum.values]
        self.found[enum.name] = {
            "type": "string",
            "description": "\n".join([about[enum.full_name], *values]),
            "enum": [value.name for value in enum.values],
        }
        return _reference(enum.name)
