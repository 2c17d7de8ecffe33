"""The text of a filter that cannot be read: places in it, what stands before and after one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from kfl.errors import KflError

RESERVED = frozenset({"or", "and", "in", "not", "true", "false", "nil", "null"})

MAX_SHOWN = 60
"""Characters of a filter that a message repeats."""

# Texts and comments. A text that does not end is taken to its line's end, so that looking for them
# takes time in proportion to the filter.
SKIPPED = re.compile(
    r'"(?:\\.|[^"\\\n])*+"?|\'(?:\\.|[^\'\\\n])*+\'?|(?:#|//)[^\n]*',
)

_SELECTOR = re.compile(
    r"[A-Za-z_]\w*+(?:\.\.?[A-Za-z_]\w*+|\.\*|\[(?:\d++|\"[^\"\n]*+\"|'[^'\n]*+')\])*+\s*\Z",
    re.ASCII,
)
_OPERAND = re.compile(r"""\s*("[^"\n]*+"|'[^'\n]*+'|[^\s()\[\],]++)""")

Slip: TypeAlias = Callable[[str, int], "KflError | None"]
"""What was meant at an offset; None when it is not this slip."""


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def blank(text: str) -> str:
    """The filter with spaces for its texts and comments, so that offsets stay."""
    return SKIPPED.sub(lambda found: " " * len(found.group()), text)


def error_at(text: str, offset: int, message: str, suggestion: str) -> KflError:
    """An error at an offset."""
    return KflError(message, *place(text, offset), suggestion)


def selector_before(text: str, offset: int) -> str:
    """The selector that ends at the offset, or `x`."""
    line = text[max(0, offset - 200) : offset]
    best = "x"
    for start in range(len(line) - 1, -1, -1):
        if line[start].isalpha() or line[start] == "_":
            if start and (line[start - 1].isalnum() or line[start - 1] in "_.\"'"):
                continue
            found = _SELECTOR.match(line, start)
            if found:
                best = found.group().rstrip()
            elif best != "x":
                break
    return best


def operand_after(text: str, offset: int) -> str:
    """The text, number or word that begins at the offset, or `...`."""
    found = _OPERAND.match(text, offset)
    return found.group(1)[:MAX_SHOWN] if found else "..."


def quoted(word: str) -> str:
    """A word as a KFL text; a text stays as it is."""
    if word[:1] in "\"'" and word[-1:] == word[:1] and len(word) > 1:
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def brackets(text: str) -> Iterator[tuple[int, str]]:
    """Brackets outside of texts and comments: their offsets and what they are."""
    for found in re.finditer(r"[()\[\]]", blank(text)):
        yield found.start(), found.group()
