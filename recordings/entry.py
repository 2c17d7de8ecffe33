"""Rows of ENTRIES as the JSON objects that people and filters see.

The query service calls objects() for what it answers with, capture for what may match. Works column
by column: a few microseconds an entry, most of them for headers.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

import orjson
import pyarrow as pa

from recordings.schema import ENTRIES

_NS: Final = 1_000_000_000

_HOT: Final = {
    "request": (
        ("method", "request_method"),
        ("url", "request_url"),
        ("path", "request_path"),
        ("httpVersion", "request_http_version"),
        ("headersSize", "request_headers_size"),
        ("bodySize", "request_body_size"),
        ("body", "request_body"),
    ),
    "response": (
        ("status", "response_status"),
        ("statusText", "response_status_text"),
        ("httpVersion", "response_http_version"),
        ("headersSize", "response_headers_size"),
        ("bodySize", "response_body_size"),
        ("body", "response_body"),
    ),
}
"""Keys of a message and the columns that they come from."""

Columns = Mapping[str, list[Any]]
Json = dict[str, Any]


def objects(table: pa.Table) -> list[Json]:
    """Return each row of a table with the columns of ENTRIES, and perhaps `record`, as an entry.

    A column that is not there counts as null. JSON text that is damaged counts as an empty object.
    """
    columns = _columns(table)
    moments = _moments(table)
    ends = zip(
        _peers(columns, "src"),
        _peers(columns, "dst"),
        _messages(table, columns, "request"),
        _messages(table, columns, "response"),
        strict=True,
    )
    heads = zip(
        columns["node_name"],
        columns["node_ip"],
        columns["stream"],
        columns["index"],
        columns["record"],
        columns["protocol_name"],
        columns["protocol_version"],
        columns["protocol_abbr"],
        columns["transport"],
        columns["tls"],
        strict=True,
    )
    sizes = zip(
        columns["elapsed_us"],
        columns["request_size"],
        columns["response_size"],
        columns["error_type"],
        columns["error_msg"],
        strict=True,
    )
    return [
        {
            "id": f"{node}/{stream}-{index}",
            "index": index,
            "stream": stream,
            "record": record,
            "node": {"name": node, "ip": ip},
            "protocol": {"name": name, "version": version, "abbr": abbr},
            "transport": transport,
            "tls": tls,
            "src": src,
            "dst": dst,
            "timestamp": moment[0],
            "startTime": moment[1],
            "elapsedTime": None if elapsed is None else elapsed // 1000,
            "elapsedTimeUs": elapsed,
            "requestSize": request_size,
            "responseSize": response_size,
            "request": request,
            "response": response,
            "error": None if error is None else {"type": error, "msg": message or ""},
        }
        for (
            (node, ip, stream, index, record, name, version, abbr, transport, tls),
            (src, dst, request, response),
            (elapsed, request_size, response_size, error, message),
            moment,
        ) in zip(heads, ends, sizes, moments, strict=True)
    ]


def rfc3339(ns: int) -> str:
    """Return nanoseconds since 1970 as RFC 3339 text in UTC with nine digits of the second."""
    return next(_texts([ns]))


def _columns(table: pa.Table) -> Columns:
    """Return all flat columns as lists; nulls are None."""
    nulls: list[Any] = [None] * table.num_rows
    there = set(table.column_names)
    found: dict[str, list[Any]] = {"record": nulls}
    if "record" in there:
        found["record"] = table.column("record").to_pylist()
    for field in ENTRIES:
        if field.name not in there:
            found[field.name] = nulls
        elif not pa.types.is_list(field.type) and not pa.types.is_timestamp(field.type):
            column = table.column(field.name)
            empty = column.null_count == len(column)
            found[field.name] = nulls if empty else column.to_pylist()
    return found


def _moments(table: pa.Table) -> list[tuple[int | None, str | None]]:
    """Return start times as milliseconds since 1970 and as text."""
    if "start_time" not in table.column_names:
        return [(None, None)] * table.num_rows
    column = table.column("start_time").cast(ENTRIES.field("start_time").type).cast(pa.int64())
    times: list[int] = column.to_pylist()
    milliseconds = (ns // 1_000_000 for ns in times)
    return list(zip(milliseconds, _texts(times), strict=True))


def _texts(times: list[int]) -> Iterator[str]:
    """Yield RFC 3339 texts; entries come in bursts, so a second is laid out once for many."""
    seconds: dict[int, str] = {}
    for ns in times:
        second, rest = divmod(ns, _NS)
        text = seconds.get(second)
        if text is None:
            text = seconds[second] = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        yield f"{text}{rest:09d}Z"


def _peers(columns: Columns, side: str) -> Iterator[Json]:
    names = ("ip", "port", "name", "namespace", "pod", "service", "dns", "labels")
    for ip, port, name, namespace, pod, service, dns, labels in zip(
        *(columns[f"{side}_{key}"] for key in names), strict=True
    ):
        namespace = namespace or ""
        yield {
            "ip": ip or "",
            "port": port,
            "name": name or "",
            "namespace": namespace,
            "pod": {
                "name": pod or "",
                "namespace": namespace if pod else "",
                "labels": _parse(labels) if labels else {},
            },
            "service": {"name": service or "", "namespace": namespace if service else ""},
            "dns": dns or "",
        }


def _messages(table: pa.Table, columns: Columns, side: str) -> Iterator[Json | None]:
    """Yield the objects of one side: what the JSON text says, then what the columns say."""
    hot = [(key, columns[column]) for key, column in _HOT[side]]
    # A column of nulls alone, as most are for most protocols, costs nothing for each row.
    hot = [(key, values) for key, values in hot if any(value is not None for value in values)]
    headers = _headers(table, f"{side}_headers")
    flags = zip(columns[f"{side}_body_base64"], columns[f"{side}_body_truncated"], strict=True)
    derive = _derive_request if side == "request" else _derive_response
    rows = zip(columns[side], headers, flags, columns["protocol_name"], strict=True)
    for row, (text, fields, (is_base64, is_truncated), protocol) in enumerate(rows):
        message = None if text is None else _parse(text)
        for key, values in hot:
            value = values[row]
            if value is not None:
                if message is None:
                    message = {}
                message[key] = value
        if fields is not None:
            message = {} if message is None else message
            message["headers"] = fields.joined()
        if message is not None:
            if is_base64:
                message["bodyEncoding"] = "base64"
            if is_truncated:
                message["bodyTruncated"] = True
            if protocol == "http":
                derive(message, fields)
        yield message


def _parse(text: str) -> Json:
    """Return a JSON object; an empty one for what is none."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


class _Names(NamedTuple):
    """What the names of a message's headers mean; few different lists of names occur."""

    is_plain: bool
    """No name comes twice, and none is a list by itself."""
    cookies: tuple[int, ...]
    set_cookies: tuple[int, ...]


class _Fields(NamedTuple):
    """The headers of one message."""

    names: tuple[str, ...]
    values: list[str]
    meaning: _Names

    def joined(self) -> Json:
        """Return headers by name: repeated ones joined, Set-Cookie as a list (RFC 9110, 5.3)."""
        if self.meaning.is_plain:
            return dict(zip(self.names, self.values, strict=True))
        # Names that differ in case alone are one; it keeps the case in which it came first.
        groups: dict[str, tuple[str, list[str]]] = {}
        for name, value in zip(self.names, self.values, strict=True):
            groups.setdefault(name.lower(), (name, []))[1].append(value)
        return {
            name: values if lower == "set-cookie" else ", ".join(values)
            for lower, (name, values) in groups.items()
        }


def _meaning(names: tuple[str, ...]) -> _Names:
    lower = [name.lower() for name in names]
    cookies = tuple(place for place, name in enumerate(lower) if name == "cookie")
    set_cookies = tuple(place for place, name in enumerate(lower) if name == "set-cookie")
    return _Names(len(set(lower)) == len(lower) and not set_cookies, cookies, set_cookies)


def _headers(table: pa.Table, name: str) -> Iterator[_Fields | None]:
    """Yield the headers of each row, in order; None where the column is null."""
    if name not in table.column_names:
        yield from [None] * table.num_rows
        return
    meanings: dict[tuple[str, ...], _Names] = {}
    for chunk in table.column(name).cast(ENTRIES.field(name).type).chunks:
        if chunk.null_count == len(chunk):
            yield from [None] * len(chunk)
            continue
        ends = chunk.offsets.to_pylist()
        first = ends[0]
        fields = chunk.values.slice(first, ends[-1] - first).flatten()
        names = fields[0].fill_null("").to_pylist()
        values = fields[1].fill_null("").to_pylist()
        is_there = chunk.is_valid().to_pylist()
        for row, valid in enumerate(is_there):
            begin, end = ends[row] - first, ends[row + 1] - first
            if not valid:
                yield None
                continue
            key = tuple(names[begin:end])
            meaning = meanings.get(key)
            if meaning is None:
                meaning = meanings[key] = _meaning(key)
            yield _Fields(key, values[begin:end], meaning)


def _derive_request(message: Json, fields: _Fields | None) -> None:
    path = message.get("path")
    if isinstance(path, str):
        segments = path.split("/")
        message["pathSegments"] = segments[1:] if not segments[0] else segments
    url = message.get("url")
    if isinstance(url, str):
        message["queryString"] = _query(url.partition("?")[2]) if "?" in url else {}
    cookies: Json = {}
    if fields:
        for place in fields.meaning.cookies:
            for pair in fields.values[place].split(";"):
                _add_cookie(cookies, pair)
    message["cookies"] = cookies


def _derive_response(message: Json, fields: _Fields | None) -> None:
    cookies: Json = {}
    if fields:
        for place in fields.meaning.set_cookies:
            _add_cookie(cookies, fields.values[place].partition(";")[0])
    message["cookies"] = cookies


def _add_cookie(cookies: Json, pair: str) -> None:
    """Add `name=value` as it came; cookies are not percent-decoded (RFC 6265, 5.4)."""
    name, equals, value = pair.partition("=")
    name = name.strip()
    if equals and name:
        _add(cookies, name, value.strip())


def _query(text: str) -> Json:
    """Return the fields of a query as application/x-www-form-urlencoded (WHATWG URL, 5.1)."""
    found: Json = {}
    for pair in text.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            _add(found, _decode(name), _decode(value))
    return found


def _decode(text: str) -> str:
    return unquote_plus(text) if "%" in text or "+" in text else text


def _add(found: Json, name: str, value: str) -> None:
    """Add a value; a name that comes again gets a list."""
    there = found.get(name)
    if there is None:
        found[name] = value
    elif isinstance(there, list):
        there.append(value)
    else:
        found[name] = [there, value]
