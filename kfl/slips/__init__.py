"""What was probably meant where a filter cannot be read. `parse` asks when the grammar stops.

Each slip is a pattern of the text right at the place where reading stopped, and what to write
instead, in the words of that filter.
"""

from __future__ import annotations

from kfl.errors import KflError
from kfl.slips import characters, operators, values
from kfl.slips.written import Slip

_SLIPS: tuple[Slip, ...] = (
    characters.typographic,
    characters.invisible,
    characters.other_letters,
    characters.open_text,
    values.bare_key,
    operators.sql_frame,
    values.list_in_round_brackets,
    operators.sql,
    operators.infix_method,
    operators.capital_keyword,
    values.bare_value,
    operators.sign,
    characters.unknown,
    characters.unbalanced,
)
"""Asked in this order."""


def slip_at(text: str, offset: int) -> KflError | None:
    """What was meant at the offset where reading stopped; None when nothing is known."""
    for slip in _SLIPS:
        found = slip(text, offset)
        if found is not None:
            return found
    return None
