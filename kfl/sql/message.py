"""What an HTTP message holds beyond its columns: headers by name, cookies, the query, the path.

The same as `recordings.entry` makes of a row: a filter sees in SQL what it sees in the JSON.
"""

from __future__ import annotations

from collections.abc import Callable

from kfl.sql.pieces import Piece, each, let, parameter, put, those
from kfl.sql.quick import InHeaders
from kfl.sql.values import Keyed, Plain, Value

WHITESPACE = (
    " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""What str.strip() takes off."""

SET_COOKIE = "set-cookie"


def headers(side: str) -> Keyed:
    """The column of headers as a map: repeated ones joined, Set-Cookie as a list."""
    column = Piece(f"{side}_headers")
    values = put(
        "list_transform({}, lambda h: struct_pack(n := lower(h.name), v := coalesce(h.value, '')))",
        column,
    )

    def joined(name: Piece) -> Piece:
        found = put("list_transform({}, lambda h: h.v)", _named(values, name))
        return let(
            found,
            lambda v: put(
                "CASE WHEN len({}) = 0 THEN NULL::JSON WHEN {} = 'set-cookie' THEN to_json({})"
                " ELSE to_json(array_to_string({}, ', ')) END",
                v,
                name,
                v,
                v,
            ),
        )

    def get(name: str) -> Value:
        lower = name.lower()
        if lower == SET_COOKIE:
            return Plain("json", joined(parameter(lower)))
        # Unlike array_to_string(), which is "" for none, this is NULL.
        text = put(
            "list_aggregate(list_transform(list_filter({}, lambda h: lower(h.name) = {}),"
            " lambda h: coalesce(h.value, '')), 'string_agg', ', ')",
            column,
            parameter(lower),
        )
        return Plain("text", text, hint=InHeaders(column, lower))

    names = put("list_distinct(list_transform({}, lambda h: lower(h.name)))", column)
    return Keyed(
        get,
        lambda: Plain("many", each(names, joined)),
        lambda: Plain("integer", put("len({})", names)),
    )


def _named(pairs: Piece, name: Piece) -> Piece:
    return those(pairs, lambda pair: put("({}.n = {})", pair, name))


def _repeated(pairs: Piece) -> Keyed:
    """A map of pairs {n, v} in which a name that comes again has a list."""

    def found(name: Piece) -> Piece:
        values = put("list_transform({}, lambda p: p.v)", _named(pairs, name))
        return let(
            values,
            lambda v: put(
                "CASE len({}) WHEN 0 THEN NULL::JSON WHEN 1 THEN to_json({}[1])"
                " ELSE to_json({}) END",
                v,
                v,
                v,
            ),
        )

    names = put("list_distinct(list_transform({}, lambda p: p.n))", pairs)
    return Keyed(
        lambda name: Plain("json", found(parameter(name))),
        lambda: Plain("many", each(names, found)),
        lambda: Plain("integer", put("len({})", names)),
    )


def cookies(side: str) -> Keyed:
    """Of the Cookie headers of a request, or the Set-Cookie headers of a response."""
    name = "cookie" if side == "request" else SET_COOKIE
    fields = put(
        "list_filter(coalesce({}, []), lambda h: lower(h.name) = {})",
        Piece(f"{side}_headers"),
        parameter(name),
    )
    if side == "request":
        parts = put(
            "flatten(list_transform({}, lambda h: string_split(coalesce(h.value, ''), ';')))",
            fields,
        )
    else:
        parts = put(
            "list_transform({}, lambda h: string_split(coalesce(h.value, ''), ';')[1])", fields
        )
    with_equals = put("list_filter({}, lambda p: contains(p, '='))", parts)
    pairs = put(
        "list_transform({}, lambda p: struct_pack(n := trim(string_split(p, '=')[1], {}),"
        " v := trim(substr(p, length(string_split(p, '=')[1]) + 2), {})))",
        with_equals,
        parameter(WHITESPACE),
        parameter(WHITESPACE),
    )
    return _repeated(put("list_filter({}, lambda p: p.n <> '')", pairs))


def query(url: Piece) -> Keyed:
    """Fields of the query of a URL, percent-decoded.

    Octets that are not UTF-8 become U+FFFD in the JSON, which SQL cannot do: such rows are not
    sure.
    """
    text = put("substr({}, length(string_split({}, '?')[1]) + 2)", url, url)
    parts = put("list_filter(string_split({}, '&'), lambda p: p <> '')", text)
    pairs = put(
        "list_transform({}, lambda p: struct_pack(n := {}, v := {}))",
        parts,
        _decoded("string_split(p, '=')[1]"),
        _decoded("substr(p, length(string_split(p, '=')[1]) + 2)"),
    )
    sure = put("(TRY(url_decode(replace({}, '+', ' '))) IS NOT NULL OR {} IS NULL)", text, url)
    made = _repeated(pairs)
    return Keyed(
        _sure(made.get, sure),
        lambda: Plain("many", made.values().piece, sure=sure),
        lambda: Plain("integer", made.count().piece, sure=sure),
        sure,
    )


def _sure(get: Callable[[str], Value], sure: Piece) -> Callable[[str], Value]:
    def with_sure(name: str) -> Value:
        found = get(name)
        assert isinstance(found, Plain)
        return Plain(found.kind, found.piece, found.nil, sure)

    return with_sure


def _decoded(text: str) -> Piece:
    return Piece(f"TRY(url_decode(replace({text}, '+', ' ')))")


def path_segments(path: Piece) -> Plain:
    """The path split at its slashes, without the empty text before the first one."""
    parts = put("string_split({}, '/')", path)
    return Plain(
        "json",
        let(
            parts,
            lambda p: put("to_json(CASE WHEN {}[1] = '' THEN {}[2:] ELSE {} END)", p, p, p),
        ),
    )
