"""One name of the catalogue. `fields`, `kfl1` and `kfl2` make them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """One name that a filter may use.

    `type` is text, number, bool, list, map or any. `paths` are where the JSON of an entry has it,
    in KFL's notation. `how` says what is made of them: `one` value, the `first` that is there, a
    list of `all`, whether it is `present`, whether the first is and the second is not (`success`),
    the `sum`, or the `rate` a second.
    """

    name: str
    type: str
    meaning: str
    paths: tuple[str, ...]
    column: str | None = None
    aliases: tuple[str, ...] = ()
    unit: str = ""
    guard: str = ""  # a word; under all others the value is missing
    how: str = "one"
    protocols: tuple[str, ...] = ()  # words of those that have it; empty for every protocol
    absent: str = ""  # why no entry has it yet, as the end of a sentence

    @property
    def is_open(self) -> bool:
        """A path may go on below it."""
        return self.type in ("map", "list", "any")
