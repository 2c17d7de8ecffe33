"""How much a job would record, of what agents have counted: figures, and a sentence for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from services.scheduler.ingest import Probed
from services.scheduler.jobs import Job
from services.scheduler.quota import spoken


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected; rates are of all agents together, a second."""

    agents: int
    answers: Sequence[Probed]
    seconds: int
    minutes: int
    free: int
    """Octets."""
    past: float
    """Octets a second of runs with the same statement; 0 without one."""

    @property
    def entries(self) -> float:
        """Calls a second."""
        return sum(answer.entries for answer in self.answers) / self.seconds

    @property
    def streams(self) -> float:
        """L4 streams a second."""
        return sum(answer.streams for answer in self.answers) / self.seconds

    @property
    def bytes(self) -> float:
        """Octets a second on disk."""
        return sum(answer.bytes for answer in self.answers) / self.seconds

    @property
    def expected(self) -> int:
        """Octets of a whole run."""
        return int(self.bytes * self.minutes * 60)

    @property
    def fits(self) -> bool:
        """Whether these are free."""
        return self.expected <= self.free

    @property
    def full_after(self) -> float:
        """Minutes until nothing is free; 0 when a run ends before."""
        return 0.0 if self.fits else self.free / self.bytes / 60

    @property
    def summary(self) -> str:
        """All of it for people."""
        past = ""
        if self.past:
            needs = spoken(int(self.past * self.minutes * 60))
            past = f" Earlier runs with this statement would need {needs}."
        if not self.agents:
            return f"No agent is connected, so nothing is known about the traffic.{past}"
        if not self.answers:
            return f"None of the {self.agents} agents has answered.{past}"
        who = f"{len(self.answers)} of {self.agents} agents"
        if not self.bytes:
            return f"Nothing matched in {self.seconds} s on {who}.{past}"
        rates = (
            f"{who} saw {self.entries:.1f} entries in {self.streams:.1f} streams a second, "
            f"{spoken(int(self.bytes))}/s"
        )
        need = f"{self.minutes} min need about {spoken(self.expected)}"
        if self.fits:
            return f"{rates}: {need}: fits into the {spoken(self.free)} that are free.{past}"
        full = f"fills the {spoken(self.free)} that are free in {self.full_after:.0f} min"
        return f"{rates}: {need}: {full}.{past}"


def past_rate(jobs: Iterable[Job], kfl: str) -> float:
    """Return octets a second that runs of this statement have stored; 0.0 without such a run."""
    runs = [
        run
        for job in jobs
        if job.spec.recorded_kfl == kfl and not job.spec.imported
        for run in job.runs
        if run.has_data and run.bytes and run.end_time > run.start_time
    ]
    time = sum((run.end_time - run.start_time for run in runs), timedelta())
    return sum(run.bytes for run in runs) / time.total_seconds() if runs else 0.0
