"""Cut the bodies of entries to what a run asked for: the pipeline keeps the most that any wants.

`runbuffer` calls it.
"""

import base64

import pyarrow as pa
import pyarrow.compute as pc

SIDES = ("request", "response")


def cut_bodies(table: pa.Table, limit: int) -> pa.Table:
    """Return schema ENTRIES with bodies of at most `limit` octets; what was cut says so."""
    for side in SIDES:
        lengths = pc.binary_length(table.column(f"{side}_body"))
        longest = pc.max(lengths).as_py()
        if longest is None or longest <= limit:
            continue
        # Base64 has four characters for three octets, or for the last one or two.
        is_base64 = table.column(f"{side}_body_base64")
        is_long = pc.greater(lengths, pc.if_else(is_base64, (limit + 2) // 3 * 4, limit))
        if pc.any(is_long).as_py():
            is_long = pc.fill_null(is_long, False).combine_chunks()
            table = _cut_side(table, side, limit, is_long)
    return table


def _cut_side(table: pa.Table, side: str, limit: int, is_long: pa.BooleanArray) -> pa.Table:
    bodies = table.column(f"{side}_body").combine_chunks()
    truncated = table.column(f"{side}_body_truncated").combine_chunks()
    in_base64 = table.column(f"{side}_body_base64").combine_chunks().filter(is_long).to_pylist()
    cut, is_cut = [], []
    for body, coded in zip(bodies.filter(is_long).to_pylist(), in_base64, strict=True):
        shorter = _cut(body, bool(coded), limit)
        cut.append(shorter)
        is_cut.append(len(shorter) < len(body))
    was_cut = pc.or_(truncated.filter(is_long), pa.array(is_cut, pa.bool_()))
    bodies = pc.replace_with_mask(bodies, is_long, pa.array(cut, pa.string()))
    truncated = pc.replace_with_mask(truncated, is_long, was_cut)
    table = _with(table, f"{side}_body", bodies)
    return _with(table, f"{side}_body_truncated", truncated)


def _cut(body: str, in_base64: bool, limit: int) -> str:
    if in_base64:
        octets = base64.b64decode(body)
        return body if len(octets) <= limit else base64.b64encode(octets[:limit]).decode("ascii")
    # A character of which only some octets would stay goes as a whole.
    return body.encode()[:limit].decode(errors="ignore")


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), column)
