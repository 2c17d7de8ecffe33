"""The prepared statements and portals of one connection: what their names stand for."""

from typing import Any

MOST_NAMES = 1024  # statements, and portals, of one connection: of more the oldest are forgotten
MOST_OCTETS = 128 << 10  # of all their names, texts and values; pools prepare tens of KB

Values = list[str | None]


class Prepared:
    """Unnamed ones have the name "", and are replaced by the next."""

    def __init__(self) -> None:
        self._statements: dict[str, str] = {}
        self._portals: dict[str, tuple[str, Values]] = {}
        self.size = 0
        """Characters that are kept."""

    def parse(self, name: str, text: str) -> None:
        """A statement gets its text."""
        self._forget_statement(name)
        self._statements[name] = text
        self.size += len(name) + len(text)
        while len(self._statements) > MOST_NAMES or self.size > MOST_OCTETS:
            if self._portals:
                self._forget_portal(next(iter(self._portals)))
            else:
                self._forget_statement(next(iter(self._statements)))

    def bind(self, portal: str, statement: str, values: Values) -> None:
        """A portal gets a statement and its parameters."""
        self._forget_portal(portal)
        self._portals[portal] = statement, values
        self.size += _size_of(portal, statement, values)
        while len(self._portals) > MOST_NAMES or (self.size > MOST_OCTETS and self._portals):
            self._forget_portal(next(iter(self._portals)))

    def close(self, kind: bytes, name: str) -> None:
        """A statement (S) or portal (P) is gone."""
        if kind == b"P":
            self._forget_portal(name)
        else:
            self._forget_statement(name)

    def of_statement(self, name: str) -> dict[str, Any]:
        """Return what an entry says of a statement."""
        told: dict[str, Any] = {"statement": name} if name else {}
        if name in self._statements:
            told["query"] = self._statements[name]
        return told

    def told(self, portal: str) -> dict[str, Any]:
        """Return what an entry says of a portal."""
        told: dict[str, Any] = {"portal": portal} if portal else {}
        if portal in self._portals:
            statement, values = self._portals[portal]
            told |= self.of_statement(statement)
            if values:
                told["parameters"] = values
        return told

    def _forget_statement(self, name: str) -> None:
        text = self._statements.pop(name, None)
        if text is not None:
            self.size -= len(name) + len(text)

    def _forget_portal(self, name: str) -> None:
        found = self._portals.pop(name, None)
        if found is not None:
            self.size -= _size_of(name, *found)


def _size_of(portal: str, statement: str, values: Values) -> int:
    return len(portal) + len(statement) + sum(len(each or "") + 8 for each in values)
