"""Where a live run's tables go: `agent` has one for each, as it has a Probe for a probe."""

from services.capture.outbox import Parts
from services.capture.uplink import Uplink
from services.capture.uplinks import Uplinks


class LiveRun:
    """Takes the tables of one live run as an uplink would."""

    def __init__(self, uplink: Uplink | Uplinks) -> None:
        self._uplink = uplink

    def send(self, job: str, run: int, parts: Parts, final: bool = False) -> None:
        """Pass tables on; names and rows as Uplink.send takes them."""
        del job, final
        self._uplink.send_live(run, parts)
