"""The protocol of an agent's session, free of gRPC and of time; ingest_rpc.py feeds it.

`Session.receive` takes a message of the agent and returns what it asks for, or raises
ProtocolError: the session is over then. What the scheduler has to say comes from `welcome`,
`assign` and `settle`. A session is: hello, welcome, then batches one way, and assignments,
acknowledgements and refusals the other, in any order.
"""

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recordings import names
from recordings.journal import LONGEST_NODE, Part
from services.scheduler.batches import MAX_BATCH_BYTES, Batch
from services.scheduler.bulletin import Assignment
from services.scheduler.writer import Outcome, Refused

PROTOCOL_VERSION: Final = 1
WINDOW_BYTES: Final = 32 << 20
"""Octets that an agent may have sent without an acknowledgement: a second of a fast agent, and what
a full disk queue costs in memory for each agent."""
LONGEST_VERSION: Final = 128
MOST_PENDING: Final = 4096
"""Batches of a session that wait for the disk. Small ones never fill the window."""

_AGENT: Final = re.compile(r"[a-zA-Z0-9._-]{1,128}", re.ASCII)


class ProtocolError(Exception):
    """The agent broke the protocol; the text is a sentence that says how."""

    def __init__(self, sentence: str, *, is_precondition: bool = False) -> None:
        super().__init__(sentence)
        self.is_precondition = is_precondition
        """The message is well formed, but this scheduler cannot go on with it."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of an agent; the fields are those of ingest.proto."""

    protocol_version: int
    agent_id: str
    node: str
    node_ip: str = ""
    software_version: str = ""
    import_job: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch as it came, and the octets of its message."""

    batch: Batch
    size: int


@dataclass(frozen=True, slots=True)
class Matched:
    """How many calls of a run have matched: on the agent, or on all other agents."""

    job: str
    run: int
    calls: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What an agent would have recorded during a probe."""

    probe: int
    entries: int
    streams: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LiveRows:
    """What an agent has seen of a statement that someone watches."""

    run: int
    number: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answers a hello."""

    last_sequence: int
    window_bytes: int
    max_batch_bytes: int


@dataclass(frozen=True, slots=True)
class Assignments:
    """All that the agent is to record."""

    revision: int
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """All batches up to this number are on disk or refused."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """One batch was not stored and will never be."""

    sequence: int
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Not for the agent: it has nothing more for a run."""

    job: str
    run: int


@dataclass(slots=True)
class _Pending:
    delivery: Delivery
    is_settled: bool = False


class Session:
    """One agent's session. Not safe for several threads at once."""

    def __init__(
        self, window_bytes: int = WINDOW_BYTES, max_batch_bytes: int = MAX_BATCH_BYTES
    ) -> None:
        self.hello: Hello | None = None
        """Who it is; None until it has said hello."""
        self._window_bytes = window_bytes
        self._max_batch_bytes = max_batch_bytes
        self._sequence: int | None = None
        self._pending: OrderedDict[int, _Pending] = OrderedDict()
        self._pending_bytes = 0
        self._assigned: tuple[Assignment, ...] | None = None
        self._matched: Mapping[tuple[str, int], int] = {}

    def receive(
        self, message: Hello | Delivery | Matched | Probed | LiveRows
    ) -> Hello | Batch | Matched | Probed | LiveRows:
        """Take the agent's next message and return who it is, a batch to be stored, or a count.

        Raises ProtocolError.
        """
        if isinstance(message, Hello):
            if self.hello is not None:
                raise ProtocolError(
                    "A session has one hello, as its first message; this is the 2nd."
                )
            _check_hello(message)
            self.hello = message
            return message
        if self.hello is None:
            what = "a batch" if isinstance(message, Delivery) else "a count"
            raise ProtocolError(f"The first message of a session must be a hello, not {what}.")
        if isinstance(message, Probed | LiveRows):
            return message
        if isinstance(message, Matched):
            self._check_job(message.job, "A count")
            return message
        self._check_batch(message)
        self._sequence = message.batch.sequence
        self._pending[message.batch.sequence] = _Pending(message)
        self._pending_bytes += message.size
        return message.batch

    def has_room(self, size: int) -> bool:
        """Whether a batch of `size` octets fits the window now; one batch always does."""
        if not self._pending:
            return True
        fits = self._pending_bytes + size <= self._window_bytes
        return fits and len(self._pending) < MOST_PENDING

    @property
    def is_settled(self) -> bool:
        """Whether every batch that came was answered."""
        return not self._pending

    def welcome(self, last_sequence: int) -> Welcome:
        """Return the answer to the hello."""
        return Welcome(last_sequence, self._window_bytes, self._max_batch_bytes)

    def assign(self, revision: int, assignments: Sequence[Assignment]) -> Assignments | None:
        """Return the list of assignments, or None when the agent has it already."""
        found = tuple(assignments)
        if found == self._assigned:
            return None
        self._assigned = found
        return Assignments(revision, found)

    def matched(self, elsewhere: Mapping[tuple[str, int], int]) -> list[Matched]:
        """Return the counts of all other agents that the agent does not know yet."""
        assert self.hello is not None
        only = self.hello.import_job
        found = {key: calls for key, calls in elsewhere.items() if not only or key[0] == only}
        news = [
            Matched(*k, calls) for k, calls in found.items() if self._matched.get(k, 0) != calls
        ]
        self._matched = found
        return news

    def settle(self, outcome: Outcome) -> list[Refusal | Acknowledgement | Finished]:
        """Take what became of a batch; return what follows, in this order.

        The acknowledgement is cumulative: it waits for batches before.
        """
        found: list[Refusal | Acknowledgement | Finished] = []
        pending = self._pending.get(outcome.sequence)
        if pending is None:
            return found
        pending.is_settled = True
        if isinstance(outcome, Refused):
            found.append(Refusal(outcome.sequence, outcome.reason))
        acknowledged = 0
        while self._pending:
            sequence, first = next(iter(self._pending.items()))
            if not first.is_settled:
                break
            del self._pending[sequence]
            self._pending_bytes -= first.delivery.size
            acknowledged = sequence
        batch = pending.delivery.batch
        if batch.final:  # before the acknowledgement, since an agent may hang up once it has that
            found.append(Finished(batch.job, batch.run))
        if acknowledged:
            found.append(Acknowledgement(acknowledged))
        return found

    def _check_batch(self, delivery: Delivery) -> None:
        batch = delivery.batch
        if delivery.size > self._max_batch_bytes:
            raise ProtocolError(
                f"Batch {batch.sequence} has {delivery.size} octets; the welcome allowed "
                f"{self._max_batch_bytes}."
            )
        if batch.sequence < 1:
            raise ProtocolError("A batch has the number 0; an agent's batches count from 1.")
        if self._sequence is not None and batch.sequence != self._sequence + 1:
            raise ProtocolError(
                f"Batch {batch.sequence} came after batch {self._sequence}; an agent's batches "
                f"count without holes, so {self._sequence + 1} was to come."
            )
        self._check_job(batch.job, f"Batch {batch.sequence}")

    def _check_job(self, job: str, what: str) -> None:
        try:
            names.check(job)
        except ValueError as error:
            raise ProtocolError(f"{what} names no job: {error}") from None
        assert self.hello is not None
        if self.hello.import_job and job != self.hello.import_job:
            raise ProtocolError(
                f"{what} is for job {job}, but the hello said that this "
                f"session imports into {self.hello.import_job}."
            )


def _check_hello(hello: Hello) -> None:
    if hello.protocol_version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"The agent speaks version {hello.protocol_version} of the protocol, this scheduler "
            f"speaks version {PROTOCOL_VERSION}; use the same release for both.",
            is_precondition=True,
        )
    if not _AGENT.fullmatch(hello.agent_id):
        raise ProtocolError(
            f"{_shown(hello.agent_id)} cannot be an agent_id; it has 1 to 128 of "
            "a-z, A-Z, 0-9, '.', '_' and '-'."
        )
    if not hello.node or len(hello.node.encode()) > LONGEST_NODE or not hello.node.isprintable():
        raise ProtocolError(
            f"{_shown(hello.node)} cannot name a node; it has 1 to {LONGEST_NODE} octets, all "
            "of them printable."
        )
    if hello.node_ip:
        try:
            ipaddress.ip_address(hello.node_ip)
        except ValueError:
            raise ProtocolError(
                f"node_ip is {_shown(hello.node_ip)}, which is no IP address; leave it empty when "
                "it is not known."
            ) from None
    if len(hello.software_version) > LONGEST_VERSION:
        raise ProtocolError(f"software_version has more than {LONGEST_VERSION} characters.")
    if hello.import_job:
        try:
            names.check(hello.import_job)
        except ValueError as error:
            raise ProtocolError(f"import_job names no job: {error}") from None


def _shown(text: str) -> str:
    return f"{text[:80]!a}{'…' if len(text) > 80 else ''}"
