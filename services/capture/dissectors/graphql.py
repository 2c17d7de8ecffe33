"""Recognise GraphQL in the bodies of HTTP, and say what is asked and what went wrong.

As https://graphql.github.io/graphql-over-http/draft/ has it: `query` in a JSON body, in the query
string of a GET, or the whole body of an application/graphql. Documents are scanned, not parsed
(https://spec.graphql.org/October2021/#sec-Language): what brackets and words tell is enough.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

MOST_DOCUMENT = 64 << 10  # octets of a document that are looked at: what is kept of a body
MOST_OPERATIONS = 64  # of one document, or of a batch
MOST_PARAMETERS = 1000  # of a URL
MOST_ERRORS = 16  # of a response that are told; of all others, the number
MOST_TEXT = 1024  # characters of an error's text

ABBR = "GQL"
"""Of entries over HTTP that are GraphQL."""
REQUEST_KEYS = frozenset({"gqlOperationType", "gqlOperationName", "gqlFields", "gqlOperations"})
RESPONSE_KEYS = frozenset({"gqlErrors", "gqlErrorCount"})
"""What their requests and responses have beside HTTP's."""

KINDS = "application/json", "application/graphql"
"""How the content types of requests begin that may be GraphQL."""
IN_TARGET = "query="
"""What the target of a GET with a query has."""

_KINDS = ("query", "mutation", "subscription")
_DEFINITIONS = (*_KINDS, "fragment")
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*(?:"""|\Z)|"(?:[^"\\\n]|\\.)*(?:"|\n|\Z)|#[^\n]*'
    r"|[_A-Za-z][_0-9A-Za-z]*|\.\.\.|[{}()\[\]:!$=@|&]|-?[0-9][0-9.eE+-]*|[\s,\ufeff]+|.",
    re.DOTALL,
)
_PUNCTUATION = frozenset("{}()[]:!$=@|&") | {"..."}
_OPEN, _CLOSED = frozenset("{(["), {"}": "{", ")": "(", "]": "["}
_QUERY_KEY = re.compile(r'"query"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*)')
_NAME_KEY = re.compile(r'"operationName"\s*:\s*"([_0-9A-Za-z]{1,256})"')
_JSON_KINDS = ("application/json", "application/graphql-response+json")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation."""

    kind: str
    """query, mutation or subscription; "" of a persisted query, whose text only the server has."""
    name: str
    """"" where it has none."""
    fields: tuple[str, ...] = ()
    """What it selects at its top, without their aliases."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Of the errors of a response, the first ones, and how many there are."""

    count: int
    errors: tuple[Mapping[str, Any], ...]
    """{message, path, code}, as far as the response says so."""
    has_data: bool
    """Part of what was asked for is there nevertheless."""


def operations_of_request(
    content_type: str,
    body: str,
    query_string: Mapping[str, Any] | None = None,
    is_cut: bool = False,
) -> tuple[Operation, ...]:
    """Return what a request asks for, a batch several; empty where it is not GraphQL.

    body: decoded; query_string: its fields, of which a repeated one is a list; is_cut: whether the
    body is only the beginning of what was sent.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/graphql":
        return _operations({"query": body}, is_cut)
    if kind in _JSON_KINDS:
        return _operations_of_json(body, is_cut)
    if not body and query_string and isinstance(query_string.get("query"), str):
        return _operations(query_string)
    return ()


def errors_of_response(content_type: str, body: str) -> Failure | None:
    """Return the errors of a response to GraphQL (spec, 7.1), also where the status is 200; None
    where there are none.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _JSON_KINDS:
        return None
    answers = _loaded(body)
    answers = answers if isinstance(answers, list) else [answers]
    count, has_data = 0, False
    told: list[dict[str, Any]] = []
    for answer in answers:
        if not isinstance(answer, dict) or not isinstance(answer.get("errors"), list):
            continue
        errors = answer["errors"]
        count += len(errors)
        has_data |= answer.get("data") is not None
        told += [_told(each) for each in errors[: MOST_ERRORS - len(told)]]
    return Failure(count, tuple(told), has_data) if count else None


def may_ask(content_type: str | None, url: str) -> bool:
    """Whether the head of a request lets it be GraphQL, so that its body is worth a look."""
    kind = (content_type or "").lstrip().lower()
    return kind.startswith(KINDS) or IN_TARGET in url


def told_request(
    content_type: str | None, url: str, body: str | None, is_cut: bool
) -> dict[str, Any]:
    """Return what an entry's request says of GraphQL, nothing where it is none. body: None where it
    is no text.
    """
    if not may_ask(content_type, url):
        return {}
    query_string = dict(parse_qsl(url.partition("?")[2], max_num_fields=MOST_PARAMETERS))
    found = operations_of_request(content_type or "", body or "", query_string, is_cut)
    if not found:
        return {}
    told: dict[str, Any] = {}
    if found[0].kind:
        told["gqlOperationType"] = found[0].kind
    if found[0].name:
        told["gqlOperationName"] = found[0].name
    if found[0].fields:
        told["gqlFields"] = list(found[0].fields)
    if len(found) > 1 or not told:
        told["gqlOperations"] = [
            {"type": each.kind, "name": each.name, "fields": list(each.fields)} for each in found
        ]
    return told


def told_response(content_type: str | None, body: str | None) -> dict[str, Any]:
    """Return what an entry's response to GraphQL says of errors, nothing where there are none."""
    found = errors_of_response(content_type or "", body or "")
    if found is None:
        return {}
    return {"gqlErrors": list(found.errors), "gqlErrorCount": found.count}


def scan(document: str, is_cut: bool = False) -> tuple[Operation, ...] | None:
    """Return the operations of a document, None where it is not GraphQL. Linear in its length.

    One that was cut may end anywhere.
    """
    is_cut |= len(document) > MOST_DOCUMENT
    found: list[Operation] = []
    open_brackets: list[str] = []
    kind = name = ""
    fields: list[str] = []
    before = ""  # the word before
    for word in _words(document[:MOST_DOCUMENT]):
        if not open_brackets:
            if word in _DEFINITIONS and not kind:
                kind = word
            elif word == "{":
                kind = kind or "query"
            elif not kind:
                return None
            elif before in _KINDS and _is_name(word):
                name = word
        elif open_brackets == ["{"] and _is_name(word) and before not in ("...", "@", "$"):
            if before == ":" and fields:
                fields[-1] = word  # what came before was its alias
            elif before not in (":", "on"):
                fields.append(word)
        if word in _OPEN:
            open_brackets.append(word)
        elif word in _CLOSED:
            if not open_brackets or open_brackets.pop() != _CLOSED[word]:
                return None
            if not open_brackets and word == "}":
                if kind != "fragment" and len(found) < MOST_OPERATIONS:
                    found.append(Operation(kind, name, tuple(fields)))
                kind, name, fields = "", "", []
        before = word
    if open_brackets or kind:  # it ends in the middle
        if not is_cut or not open_brackets:
            return None
        found.append(Operation(kind, name, tuple(fields)))
    return tuple(found) if all(each.fields for each in found) and found else None


def _words(document: str) -> Iterator[str]:
    """Yield words and punctuation; strings, numbers and comments are passed over."""
    for match in _TOKEN.finditer(document):
        word = match.group()
        if word in _PUNCTUATION or _is_name(word):
            yield word


def _is_name(word: str) -> bool:
    return word[0].isalpha() or word[0] == "_"


def _operations_of_json(body: str, is_cut: bool) -> tuple[Operation, ...]:
    if '"query"' not in body and '"persistedQuery"' not in body:
        return ()
    asked = _loaded(body)
    if asked is None and is_cut:  # what there is of the query is enough
        found, name = _QUERY_KEY.search(body), _NAME_KEY.search(body)
        if found is None:
            return ()
        text = _loaded(found.group(1) + '"')
        asked = {"query": text, "operationName": name.group(1) if name else None}
        return _operations(asked, is_cut)
    if not isinstance(asked, list):
        return _operations(asked)
    batch = [_operations(each) for each in asked[:MOST_OPERATIONS]]
    return tuple(each for one in batch for each in one) if all(batch) else ()


def _operations(asked: Any, is_cut: bool = False) -> tuple[Operation, ...]:
    """Return the operation that is to be run, which operationName says where there are several."""
    if not isinstance(asked, Mapping):
        return ()
    name, document = asked.get("operationName"), asked.get("query")
    name = name if isinstance(name, str) else ""
    if not isinstance(document, str) or not document:
        extensions = asked.get("extensions")
        is_persisted = isinstance(extensions, Mapping) and "persistedQuery" in extensions
        return (Operation("", name),) if is_persisted else ()
    found = scan(document, is_cut) or ()
    return tuple(each for each in found if each.name == name)[:1] or found[:1]


def _told(error: Any) -> dict[str, Any]:
    if not isinstance(error, dict):
        return {"message": str(error)[:MOST_TEXT]}
    told: dict[str, Any] = {"message": str(error.get("message", ""))[:MOST_TEXT]}
    path, extensions = error.get("path"), error.get("extensions")
    if isinstance(path, list):
        told["path"] = ".".join(str(each) for each in path)[:MOST_TEXT]
    if isinstance(extensions, dict) and isinstance(extensions.get("code"), str):
        told["code"] = extensions["code"][:MOST_TEXT]
    return told


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
