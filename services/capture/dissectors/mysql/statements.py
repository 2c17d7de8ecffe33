"""The prepared statements of one connection: what their numbers stand for."""

from dataclasses import dataclass, field

MOST_STATEMENTS = 1024  # of one connection: of more the oldest are forgotten
MOST_OCTETS = 128 << 10  # of all their texts; pools prepare tens of KB
OCTETS_EACH = 100  # beside the text, about


@dataclass(slots=True)
class Statement:
    """One of them."""

    query: str
    parameters: int
    types: list[int] = field(default_factory=list)
    """Of its parameters, as they were bound last."""
    long: set[int] = field(default_factory=set)
    """Parameters that were sent by themselves since."""


class Statements:
    """By number."""

    def __init__(self) -> None:
        self._known: dict[int, Statement] = {}
        self.last = -1
        """The number of the newest: an execution may call it 0xFFFFFFFF."""
        self.size = 0
        """Octets that are kept, about."""

    def add(self, number: int, statement: Statement) -> None:
        """A statement was prepared."""
        self.remove(number)
        self._known[number] = statement
        self.last = number
        self.size += len(statement.query) + OCTETS_EACH
        while len(self._known) > MOST_STATEMENTS or self.size > MOST_OCTETS:
            self.remove(next(iter(self._known)))

    def get(self, number: int) -> Statement | None:
        """Return a statement that was prepared in what was seen."""
        return self._known.get(self.last if number == 0xFFFFFFFF else number)

    def remove(self, number: int) -> None:
        """A statement is gone."""
        found = self._known.pop(number, None)
        if found is not None:
            self.size -= len(found.query) + OCTETS_EACH

    def clear(self) -> None:
        """All are gone."""
        self._known.clear()
        self.size = 0
