"""What an unknown name of a filter may have been meant to be. `resolve` asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kfl import ast
from kfl.errors import did_you_mean
from kfl.fields import NAMES
from kfl.functions import FUNCTIONS, METHODS
from kfl.show import show_steps, show_text
from kfl.slips.written import RESERVED
from kfl.words import WORDS

_KEYWORDS = {
    **{word: word for word in RESERVED},
    **dict.fromkeys(("none", "undefined", "empty", "nothing"), "nil"),
    **dict.fromkeys(("yes", "on"), "true"),
    **dict.fromkeys(("no", "off"), "false"),
}

MOST_NAMES = 12
"""Names that one sentence lists."""


def name(word: str, macros: Iterable[str]) -> str:
    """A sentence about an unknown word or field: which it may be, or that it needs quotes."""
    if word.lower() in _KEYWORDS:
        return f"Write `{_KEYWORDS[word.lower()]}`."
    if word in METHODS:
        return f"Write x.{word}(...)."
    if word.replace(".", "_") in NAMES:
        return f"Did you mean {word.replace('.', '_')}?"
    root, _, end = word.rpartition(".")
    ends = [end] if end in NAMES else [known for known in NAMES if known.endswith("." + end)]
    if ends and (not root or root in WORDS):
        return f"Did you mean {' or '.join(ends[:3])}?"
    hint = did_you_mean(word, [*NAMES, *WORDS, *macros])
    if hint:
        return hint
    below = [known for known in NAMES if known.startswith(word.partition(".")[0] + ".")]
    if below:
        return f"There are {', '.join(below[:MOST_NAMES])}."
    return f"Put text into quotes: {show_text(word[:80])}."


Knows = Callable[[str], bool]


def bare_text(node: ast.Node, knows: Knows) -> str:
    """`GET`, `kube-dns` or `cart.shop`, which would need quotes; "" for anything else."""
    match node:
        case ast.Name(word=word):
            is_known = knows(word) or word in FUNCTIONS or word.lower() in _KEYWORDS
            return "" if is_known else word
        case ast.Path(base=ast.Name(word=word), steps=steps):
            is_root = any(known.startswith(word + ".") for known in NAMES)
            if is_root or knows(word) or not all(isinstance(step, ast.Key) for step in steps):
                return ""
            return word + show_steps(steps)
        case ast.Binary(operator="-", left=left, right=right):
            start = bare_text(left, knows)
            end = right.word if isinstance(right, ast.Name) else ""
            if isinstance(right, ast.Literal) and isinstance(right.value, int):
                end = str(right.value)
            return f"{start}-{end}" if start and end else ""
        case _:
            return ""


def hyphened(node: ast.Node, knows: Knows) -> ast.Path | None:
    """The selector that `request.headers.User-Agent` was meant to be."""
    if not (isinstance(node, ast.Binary) and node.operator == "-"):
        return None
    if not isinstance(node.right, ast.Name) or knows(node.right.word):
        return None
    before = hyphened(node.left, knows) or node.left
    if not (isinstance(before, ast.Path) and isinstance(before.steps[-1], ast.Key)):
        return None
    whole = f"{before.steps[-1].name}-{node.right.word}"
    return ast.Path(before.base, (*before.steps[:-1], ast.Key(whole)), before.at)
