"""What one entry of PostgreSQL is made of: a query, or the execution of a prepared statement."""

from dataclasses import dataclass, field
from typing import Any

from services.capture.dissectors.objectcalls import Exchange
from services.capture.dissectors.signatures import CLIENT, SERVER

Json = dict[str, Any]

SKIPPED = "pair-not-found", "the server skipped it after an error in the same batch"

MOST_NOTICES = 16  # of one answer: of more, the first ones
MOST_DIGITS = 18  # of a count of rows: what has more is none
MOST_RESULTS = 16  # of one query with several statements: of more, the first ones


@dataclass(slots=True)
class Unit:
    """A request, while its answer comes."""

    request: Json | None
    start_ns: int
    end_ns: int
    request_size: int = 0
    response_size: int = 0
    kept: int = 0
    """Octets of the request in memory, about."""
    waiting: int = 0
    """Steps that are not answered yet."""
    executes: bool = False
    """It has an Execute, or is a simple query."""
    portal: str | None = None
    """That its Bind made."""
    statement: str | None = None
    """That its Parse made."""
    answered: bool = False
    response: Json = field(default_factory=dict)
    results: list[Json] = field(default_factory=list)
    rows: int = 0
    result_rows: int = 0
    """Rows since the last CommandComplete."""
    columns: list[str] | None = None
    copied: list[int] = field(default_factory=lambda: [0, 0])
    """Octets of COPY, by side."""
    copies_in: bool = False
    """The client is to send data for COPY."""
    skipped: bool = False
    """An error before it, in the same batch, kept the server from doing it."""
    lacks: bool = False
    """Some of it was lost on the way."""

    def complete(self, tag: str) -> None:
        """Take a CommandComplete."""
        words = tag.split(" ")
        result: Json = {"commandTag": tag, "rows": self.result_rows}
        number = words[-1][:MOST_DIGITS]
        if number.isascii() and number.isdigit():
            if words[0] == "COPY" and self.copied[SERVER]:
                self.rows += int(number)
                result["rows"] = int(number)
            elif words[0] not in ("SELECT", "FETCH", "MOVE"):
                result["affected"] = int(number)
        if self.columns is not None:
            result["columns"] = self.columns
        if len(self.results) < MOST_RESULTS:
            self.results.append(result)
        self.result_rows, self.columns = 0, None

    def fail(self, error: dict[str, str]) -> None:
        """Take an ErrorResponse."""
        self.response.setdefault("error", error)

    def notice(self, fields: dict[str, str]) -> None:
        """Take a NoticeResponse."""
        notices = self.response.setdefault("notices", [])
        if len(notices) < MOST_NOTICES:
            notices.append(fields)

    def exchange(self, kind: str | None = None, why: str | None = None) -> Exchange:
        """Return what is known; kind and why: what its error is, when it is not whole."""
        if kind is None and self.lacks:
            kind, why = "gap", "octets of it were lost"
        if self.skipped:
            kind, why = SKIPPED
        response = self._answer() if self.answered and not self.skipped else None
        if kind is not None and response is not None and "error" not in response:
            del response["status"]  # nobody knows how it ended
        return Exchange(
            self.start_ns, self.end_ns, self.request, response,
            self.request_size, self.response_size, error_type=kind, error_msg=why,
        )  # fmt: skip

    def _answer(self) -> Json:
        response: Json = {"status": "ERROR" if "error" in self.response else "OK"}
        response |= self.response
        if self.results:
            response |= self.results[-1]
            affected = [each["affected"] for each in self.results if "affected" in each]
            if affected:
                response["affected"] = sum(affected)
        elif self.columns is not None:
            response["columns"] = self.columns
        if len(self.results) > 1:
            response["results"] = self.results
        if self.rows or self.results:
            response["rows"] = self.rows
        if self.copied[SERVER]:
            response["copyOctets"] = self.copied[SERVER]
        if self.copied[CLIENT] and self.request is not None:
            self.request["copyOctets"] = self.copied[CLIENT]
        return response
