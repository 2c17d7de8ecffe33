"""What agents' sessions ask and report, at a scheduler that leads or follows; ingest_rpc.py calls.

Who moves the runs here (lifecycle.py in a leader, follower.py in the others) publishes the
bulletin, asks what was reported, and is woken when something was.
"""

import threading

from services.runtime.clock import Clock
from services.runtime.logging import logger
from services.scheduler.bulletin import Assignment, Bulletin
from services.scheduler.deliveries import Deliveries
from services.scheduler.ingest import LiveRows, Probed
from services.scheduler.live import Live
from services.scheduler.matches import Matches
from services.scheduler.probes import Probes


class Sessions:
    """The agents of this scheduler. Methods are thread-safe and wait for no change of a job."""

    def __init__(self, clock: Clock) -> None:
        self.bulletin = Bulletin()
        self.deliveries = Deliveries()
        self.matches = Matches()
        self.probes = Probes()
        self.live = Live(clock, self.bulletin.watch)
        self.wake = threading.Event()
        """Set when something is to be looked at."""
        self._clock = clock
        self._log = logger(__name__)

    def open(self) -> None:
        """Let people wait for jobs, because they begin to change."""
        self.bulletin.open()
        self.probes.open()

    def close(self) -> None:
        """Let those go who wait for jobs, because nothing changes any more."""
        self.wake.set()
        self.bulletin.close()
        self.probes.close()

    def assignments(self, import_job: str = "") -> tuple[int, list[Assignment]]:
        """Return the list's revision and the runs to record now and soon.

        An imported job is only in the list of the importer that names it, and nothing else is.
        """
        return self.bulletin.assignments(import_job)

    def wait_for_change(self, revision: int, timeout: float) -> int:
        """Wait until the list is another than `revision`, at most `timeout` seconds; return its."""
        return self.bulletin.wait_for_list(revision, timeout)

    def agent_connected(self, agent_id: str, node: str, import_job: str = "") -> None:
        """Note that an agent's session has begun: runs wait for it at their end."""
        self.deliveries.connected(agent_id, node, import_job, self._clock.now())
        if not import_job:
            self.live.agent_came(agent_id, node)
        self.wake.set()
        self._log.info("agent connected", agent=agent_id, node=node)

    def agent_disconnected(self, agent_id: str) -> None:
        """Note that an agent's session has ended."""
        self.deliveries.disconnected(agent_id, self._clock.now())
        self.live.agent_left(agent_id)
        self.wake.set()
        self._log.info("agent disconnected", agent=agent_id)

    def agent_finished(self, agent_id: str, job: str, run: int) -> None:
        """Note that an agent's last batch for a run is on disk."""
        known = self.bulletin.get(job)
        found = None if known is None else known.run(run)
        if found is not None and found.is_recording:
            self.deliveries.finished(agent_id, job, run, self._clock.now())
            self.wake.set()

    def agent_delivered(
        self, agent_id: str, job: str, run: int, sequence: int, octets: int
    ) -> None:
        """Note that a batch of an agent is on disk."""
        now = self._clock.now()
        if self.deliveries.delivered(agent_id, job, run, sequence, octets, now):
            self.wake.set()

    def agent_matched(self, agent_id: str, job: str, run: int, calls: int) -> None:
        """Note how many calls have matched on an agent, of a run with a limit()."""
        if self.bulletin.is_assigned(job, run):
            self.matches.told(agent_id, job, run, calls)

    def agent_probed(self, agent_id: str, probed: Probed) -> None:
        """Note what an agent has counted during a probe."""
        self.probes.told(agent_id, probed)

    def agent_saw(self, agent_id: str, node: str, rows: LiveRows) -> None:
        """Pass live traffic on to who watches."""
        self.live.took(agent_id, node, rows)

    def matched_elsewhere(self, agent_id: str) -> dict[tuple[str, int], int]:
        """Return how many calls have matched on all other agents, by job and run."""
        return self.matches.elsewhere(agent_id)

    def wait_for_matches(self, version: int, timeout: float) -> int:
        """Wait until agents have told other counts than at `version`, at most `timeout` seconds."""
        return self.matches.wait(version, timeout)
