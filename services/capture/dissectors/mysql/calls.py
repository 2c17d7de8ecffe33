"""A command of MySQL and its answer, on the way to an entry."""

from dataclasses import dataclass

from services.capture.dissectors.mysql.answers import Answer
from services.capture.dissectors.mysql.packets import Json
from services.capture.dissectors.objectcalls import Exchange

ENDED = "pair-not-found", "the stream ended before the answer"
NO_REQUEST = "pair-not-found", "no request was seen for this answer"
REQUEST_LOST = "gap", "octets of the request were lost"
LOST = "gap", "octets of it were lost"
FORGOTTEN = "pair-not-found", "too many later commands waited, and none was answered"
NO_LOGIN = "pair-not-found", "the client never logged in"
CUT_SHORT = "pair-not-found", "the next answer began before this one was whole"


@dataclass(slots=True)
class Call:
    """A command and its answer, as far as they have come."""

    request: Json | None
    answer: Answer
    start_ns: int
    end_ns: int
    request_size: int = 0
    response_size: int = 0
    kept: int = 0
    """Octets of the request in memory, about."""
    lacks: bool = False
    malformed: str = ""
    """What of the answer made no sense."""
    database: str | None = None
    """That will be used when it has succeeded."""
    statement: str | None = None
    """The text that is prepared."""

    def exchange(self, kind: str | None = None, why: str | None = None) -> Exchange:
        """Return what is known; kind and why: what its error is, when it is not whole."""
        if self.malformed and not self.lacks:
            kind, why = "malformed", self.malformed
        if kind is None and self.lacks:
            kind, why = LOST
        response = self.answer.response(self.answer.done) if self.answer.begun else None
        return Exchange(
            self.start_ns, self.end_ns, self.request, response, self.request_size,
            self.response_size, error_type=kind, error_msg=why,
        )  # fmt: skip
