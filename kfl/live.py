"""What is known of a filter without an entry: whether it can be true of live traffic, and of what
protocols.
"""

from __future__ import annotations

from kfl import core
from kfl.values import truth
from kfl.words import NARROWER

RECORD = core.Select((core.Key("record"),))


def needs_live(node: core.Core) -> bool:
    """Whether the filter can be true when every record() is false."""
    return _live(node) is not False


def _live(node: core.Core) -> bool | None:
    """The truth for live traffic; None when it depends on the entry."""
    match node:
        case core.Const(value=value):
            return truth(value)
        case core.Record():
            return False
        case core.Compare(left=left, right=right) if RECORD in (left, right):
            return False  # live entries have none, and so it is missing
        case core.Not(operand=operand):
            inner = _live(operand)
            return None if inner is None else not inner
        case core.All(operands=operands):
            parts = [_live(operand) for operand in operands]
            if False in parts:
                return False
            return None if None in parts else True
        case core.Some(operands=operands):
            parts = [_live(operand) for operand in operands]
            if True in parts:
                return True
            return None if None in parts else False
        case core.IfElse(condition=condition, yes=yes, no=no):
            chosen = _live(condition)
            if chosen is not None:
                return _live(yes if chosen else no)
            one, other = _live(yes), _live(no)
            return one if one is other else None
        case _:
            return None


def protocols(node: core.Core) -> frozenset[str] | None:
    """Words of which an entry must be at least one to match; None when nothing can be said."""
    match node:
        case core.Word(name=name):
            return frozenset({name})
        case core.Const(value=value) if not truth(value):
            return frozenset()
        case core.All(operands=operands):
            known = [found for each in operands if (found := protocols(each)) is not None]
            return _narrowest(known)
        case core.Some(operands=operands):
            return _union([protocols(operand) for operand in operands])
        case core.IfElse(condition=condition, yes=yes, no=no):
            yes_words = _narrowest(
                [words for part in (condition, yes) if (words := protocols(part)) is not None]
            )
            return _union([yes_words, protocols(no)])
        case core.Not() | core.Const() | core.Record() | core.Gather() | core.Items():
            return None
        case core.Guarded(word=word):
            return frozenset({word})
        case core.First() | core.MapGet():
            return None
        case _:
            # A comparison, a call or a computed value is false when a part of it is missing.
            parts = [protocols(each) for each in core.children(node) if _may_be_missing(each)]
            return _narrowest([words for words in parts if words is not None])


def _may_be_missing(node: core.Core) -> bool:
    """Not a test: that one is false instead, and false can be compared."""
    return not isinstance(node, (*core.TESTS, core.IfElse, core.Const))


def _union(parts: list[frozenset[str] | None]) -> frozenset[str] | None:
    known = [part for part in parts if part is not None]
    return frozenset().union(*known) if len(known) == len(parts) else None


def _narrowest(known: list[frozenset[str]]) -> frozenset[str] | None:
    """One of several sets that all hold: one that lies within the others, else the smallest."""
    if not known:
        return None
    for one in known:
        if all(one is other or _is_within(one, other) for other in known):
            return one
    return min(known, key=len)


def _is_within(one: frozenset[str], other: frozenset[str]) -> bool:
    return all(
        word in other or any(word in NARROWER.get(wide, ()) for wide in other) for word in one
    )
