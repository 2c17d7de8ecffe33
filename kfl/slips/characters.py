"""Characters that have no meaning in KFL, and brackets and texts that do not end."""

from __future__ import annotations

import re

from kfl.errors import KflError
from kfl.slips.written import MAX_SHOWN, SKIPPED, brackets, error_at, quoted

_QUOTES = dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
_QUOTES |= dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'")

_CLOSES = {")": "(", "]": "["}


def typographic(text: str, offset: int) -> KflError | None:
    """Quotes that a text processor made."""
    character = text[offset : offset + 1]
    plain = _QUOTES.get(character)
    if not character or plain is None:
        return None
    return error_at(
        text,
        offset,
        f"`{character}` is not a quote of KFL.",
        f"Put text between two {plain}, as typed on a keyboard.",
    )


def invisible(text: str, offset: int) -> KflError | None:
    """Spaces of other widths, and control characters."""
    character = text[offset : offset + 1]
    if not character or character.isprintable() or character in "\n\r\t":
        return None
    what = "space" if character.isspace() else "character"
    return error_at(
        text,
        offset,
        f"A {what} that cannot be seen (U+{ord(character):04X}) stands here.",
        "Put a plain space there." if what == "space" else "Take it out.",
    )


def open_text(text: str, offset: int) -> KflError | None:
    """A text without its second quote."""
    quote = text[offset : offset + 1]
    if quote not in ('"', "'"):
        return None
    found = SKIPPED.match(text, offset)
    if found is None or (len(found.group()) > 1 and _is_closed(found.group())):
        return None
    return error_at(
        text,
        offset,
        "A text begins here and does not end on this line.",
        f"Close it with {quote}, and write a line break in it as \\n.",
    )


def _is_closed(written: str) -> bool:
    body = written[1:-1]
    backslashes = len(body) - len(body.rstrip("\\"))
    return written[-1] == written[0] and backslashes % 2 == 0


def unknown(text: str, offset: int) -> KflError | None:
    """`{`, `;`, `$` and the like, which other languages have."""
    character = text[offset : offset + 1]
    if character in ("{", "}") and character:
        return error_at(
            text,
            offset,
            f"`{character}` has no meaning in KFL.",
            "A list stands in square brackets: x in [80, 443].",
        )
    if character == ";":
        return error_at(text, offset, "`;` does not end a filter.", "Leave it out.")
    if character in ("$", "@") and character:
        return error_at(
            text,
            offset,
            f"`{character}` does not begin a name in KFL.",
            "Write the name of a field alone, as in request.path.",
        )
    return None


def other_letters(text: str, offset: int) -> KflError | None:
    """`request.größe`: names are ASCII, keys in quotes are not."""
    if not text[offset : offset + 1].isalpha() or text[offset].isascii():
        return None
    before = re.search(r"\w*\Z", text[max(0, offset - MAX_SHOWN) : offset])
    after = re.match(r"\w*", text[offset : offset + MAX_SHOWN])
    assert before is not None
    assert after is not None
    start, word = offset - len(before[0]), before[0] + after[0]
    ours = quoted(word)
    if text[:start].endswith("."):
        start, word, ours = start - 1, f".{word}", f"[{ours}]"
    return error_at(text, start, f"`{word}` has letters that a name cannot have.", f"Write {ours}.")


def unbalanced(text: str, offset: int) -> KflError | None:
    """A bracket that closes nothing, or that nothing closes."""
    waiting: list[tuple[int, str]] = []
    for at, bracket in brackets(text):
        if bracket not in _CLOSES:
            waiting.append((at, bracket))
        elif waiting and waiting[-1][1] == _CLOSES[bracket]:
            waiting.pop()
        elif at <= offset:
            opened = f"the `{waiting[-1][1]}` before it closes otherwise" if waiting else ""
            ours = opened or "no bracket is open here"
            return error_at(
                text, at, f"`{bracket}` closes nothing: {ours}.", "Take it out, or open it before."
            )
        else:
            return None
    if waiting and offset >= len(text.rstrip()):
        at, bracket = waiting[-1]
        closing = {"(": ")", "[": "]"}[bracket]
        return error_at(
            text,
            at,
            f"`{bracket}` is not closed; the filter ends too early.",
            f"Write `{closing}` where it ends.",
        )
    return None
