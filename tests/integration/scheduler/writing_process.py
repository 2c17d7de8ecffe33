"""A real writer in a process of its own, for tests that kill it.

Several agents send batches of known content without a pause; each acknowledgement is a line on
stdout, written after the writer gave it. Arguments: the data folder, octets of noise in each frame,
and `compacting` to merge segments all the time, with pauses between batches.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from services.runtime.clock import SystemClock
from services.scheduler import writer as writers
from services.scheduler.compactor import Compactor, Policy
from services.scheduler.quota import Quota
from services.scheduler.writer import Accepted, Outcome, Writer
from tests.unit.scheduler.stored import batch

AGENTS = ("agent-1", "agent-2", "agent-3")
JOBS = ("checkout", "other")
UNDER_WAY = 8
"""Batches that an agent sends before it waits for the first one's answer."""


def send(writer: Writer, agent: str, size: int, pause: float) -> None:
    room = threading.Semaphore(UNDER_WAY)

    def answered(outcome: Outcome) -> None:
        assert isinstance(outcome, Accepted), outcome
        os.write(1, f"{agent} {outcome.sequence}\n".encode())
        room.release()

    sequence = writer.last_sequence(agent)
    os.write(1, f"{agent} begins {sequence}\n".encode())
    while True:
        room.acquire()
        time.sleep(pause)
        sequence += 1
        job = JOBS[sequence % 3 == 0]
        future = writer.submit(agent, "node-1", batch(agent, sequence, job, rows=2, size=size))
        future.add_done_callback(lambda found: answered(found.result()))


def main() -> None:
    # Small journals, so that a kill hits rotation, segments and manifests as well.
    writers.ROLL_BYTES = 50_000  # type: ignore[misc]
    quota = Quota(None)
    writer = Writer(Path(sys.argv[1]), quota, SystemClock())
    writer.start()
    for job in JOBS:
        writer.open_run(job, 1, "http")
    pause = 0.0
    if "compacting" in sys.argv[3:]:
        pause = 0.03
        policy = Policy(2_000_000, grace_seconds=0.2, look_seconds=0.001, is_gentle=False)
        Compactor(writer, quota, SystemClock(), policy).start()
    size = int(sys.argv[2])
    for agent in AGENTS:
        threading.Thread(target=send, args=(writer, agent, size, pause), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
