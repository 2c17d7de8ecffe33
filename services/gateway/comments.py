"""What the protos say about themselves. Called by openapi.

The generated modules have no comments, so `make protos` writes them beside these, as a
google.protobuf.FileDescriptorSet with source info.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

# Numbers of fields in descriptor.proto, of which a path in the source info is made.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED = 2, 3
_ENUM_VALUE = _SERVICE_METHOD = 2

_Path = tuple[int, ...]


@cache
def comments() -> Mapping[str, str]:
    """Return the comment of each message, field, enum, value, service and RPC, by full name."""
    read = FileDescriptorSet.FromString((files("recorder.v1") / "comments.binpb").read_bytes())
    found: dict[str, str] = {}
    for file in read.file:
        texts = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }
        for path, name in _names(file):
            found[f"{file.package}.{name}"] = texts.get(path, "")
    return found


def _names(file: FileDescriptorProto) -> Iterator[tuple[_Path, str]]:
    yield from _messages(file.message_type, (_FILE_MESSAGE,), "")
    for i, enum in enumerate(file.enum_type):
        yield (_FILE_ENUM, i), enum.name
        for j, value in enumerate(enum.value):
            # The value of an enum is a sibling of it in protobuf's names; here it is below.
            yield (_FILE_ENUM, i, _ENUM_VALUE, j), f"{enum.name}.{value.name}"
    for i, service in enumerate(file.service):
        yield (_FILE_SERVICE, i), service.name
        for j, method in enumerate(service.method):
            yield (_FILE_SERVICE, i, _SERVICE_METHOD, j), f"{service.name}.{method.name}"


def _messages(
    messages: Sequence[DescriptorProto], above: _Path, prefix: str
) -> Iterator[tuple[_Path, str]]:
    for i, message in enumerate(messages):
        path, name = (*above, i), prefix + message.name
        yield path, name
        for j, field in enumerate(message.field):
            yield (*path, _MESSAGE_FIELD, j), f"{name}.{field.name}"
        yield from _messages(message.nested_type, (*path, _MESSAGE_NESTED), f"{name}.")
