"""A scheduler and two agents in one process, whose system calls are traced: so what was written,
what was synced and what was acknowledged stand in one order. Arguments: the data folder, seconds.

Says on stdout, a line each, in one call: `created JOB`, `deleting JOB`, `deleted JOB`, and as an
agent in roles.py `sending` and `stored`, with the agent's name. An agent's numbers are those of its
batches at the scheduler. It goes on until something was merged, however slow the machine is.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from recordings import layout
from services.capture.uplink import Uplink
from services.runtime.channel import open_channel
from services.runtime.settings import SchedulerSettings
from services.scheduler import app, compactor
from services.scheduler import writer as writers
from tests.crash import roles

AGENTS = ("agent-1", "agent-2")
STEADY = "steady"
FRESH_SECONDS = 1.0
"""How long the other jobs last."""


def main() -> None:
    data, seconds = Path(sys.argv[1]), float(sys.argv[2])
    writers.ROLL_BYTES = 60_000
    writers.ROLL_SECONDS = 0.5
    policy = compactor.Policy(400_000, grace_seconds=60, look_seconds=0.01, is_gentle=False)
    app.Compactor = partial(compactor.Compactor, policy=policy)
    settings = SchedulerSettings(listen="127.0.0.1:0", data=data)
    scheduler = app.Scheduler(settings, roles.FastClock(time.time()))
    with open_channel(scheduler.address) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        create(stub, STEADY)
        for name in AGENTS:
            threading.Thread(target=agent, args=(scheduler.address, name), daemon=True).start()
        end = time.monotonic() + seconds
        for number in itertools.count():
            if time.monotonic() > end and any(
                layout.is_merged(path.name) for path in data.rglob("*.parquet")
            ):
                os._exit(0)
            create(stub, f"fresh-{number}")
            time.sleep(FRESH_SECONDS)
            say(f"deleting fresh-{number}")
            stub.DeleteJob(jobs_pb2.DeleteJobRequest(name=f"fresh-{number}"), timeout=60)
            say(f"deleted fresh-{number}")


def create(stub: jobs_pb2_grpc.JobsServiceStub, name: str) -> None:
    spec = jobs_pb2.JobSpec(name=name, kfl="http", duration_minutes=1440)
    stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=60)
    say(f"created {name}")


def agent(address: str, name: str) -> None:
    uplink = Uplink(address, name, "", agent_id=name, memory_limit=1 << 30)
    roles.note_answers(uplink, lambda word, batch, job: say(f"{word} {name} {int(batch)} {job}"))
    uplink.start()
    number = 0
    while True:
        for assignment in uplink.assignments:
            number += 1
            say(f"sending {name} {number} {assignment.job}")
            uplink.send(assignment.job, assignment.run, roles.tables(name, number))
        time.sleep(0.015)


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


if __name__ == "__main__":
    main()
