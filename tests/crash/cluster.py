"""The processes of the crash test: started, killed, started again, and called meanwhile."""

from __future__ import annotations

import multiprocessing
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import grpc
import pyarrow as pa
from google.protobuf.message import Message
from recorder.v1 import jobs_pb2_grpc, query_pb2, query_pb2_grpc

from services.runtime.channel import open_channel
from tests.crash import killpoints, roles
from tests.crash.killpoints import KillPoint

KILL_POINT_SECONDS = 1.0
"""How long a process may take to its kill point."""
PATIENCE = 15_000
"""How often the test looks before it gives up, LOOK_SECONDS apart. Not seconds: a machine may stand
still for minutes, and the test with it."""
LOOK_SECONDS = 0.02
CALL_SECONDS = 60.0

ASK_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
"""It was killed; or files were merged and removed while it read, which it tells; or see above."""

DONE_BEFORE = {
    "CreateJob": grpc.StatusCode.ALREADY_EXISTS,
    "StopJob": grpc.StatusCode.FAILED_PRECONDITION,
    "DeleteJob": grpc.StatusCode.NOT_FOUND,
}
"""What the scheduler answers to a call whose first try took effect."""

SPOOLED = ("agent-1", "agent-2")
UNSPOOLED = "agent-3"
"""Is not killed, and drops what it has no room for while the scheduler is away."""
MORTAL = "agent-4"
"""Has no spool either, and room for all; what it holds when it is killed is lost."""
AGENTS = (*SPOOLED, UNSPOOLED, MORTAL)
MEMORY = {UNSPOOLED: 30_000, MORTAL: 64 << 20}
"""Octets; of those with a spool not all batches fit into memory, either."""

# A fresh process would import for two seconds before it can be killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.crash.roles"])


class Cluster:
    """All processes over one folder, and what they have told."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.chance = chance
        self.deaths: list[str] = []
        self._origin = time.time()
        self._address = {role: f"127.0.0.1:{port}" for role, port in _ports(2).items()}
        self._running: dict[str, BaseProcess] = {}
        self._armed: set[str] = set()

    # ---- processes

    def start(self, role: str, point: KillPoint | None = None) -> None:
        """Start a process; it may die before it serves."""
        log = self.folder / f"{role}.out"
        if role == "scheduler":
            arguments = (self.data, self._address[role], self._origin, log, point)
        elif role == "query":
            arguments = (self.data, self._address[role], log, point)
        else:
            memory = MEMORY.get(role, 100_000)
            at = self._address["scheduler"]
            arguments = (self.folder, at, role, memory, role in SPOOLED, log, point)
        target = getattr(roles, role.partition("-")[0])
        process = PROCESSES.Process(target=target, args=arguments, daemon=True)
        process.start()
        self._running[role] = process
        (self._armed.add if point else self._armed.discard)(role)

    def kill(self, role: str, after_seconds: float) -> None:
        """Let a process run for a while, or to its kill point; then kill it."""
        process = self._running.pop(role)
        process.join(after_seconds + (KILL_POINT_SECONDS if role in self._armed else 0))
        by_itself = process.exitcode is not None
        process.kill()
        process.join()
        assert process.exitcode == -9, f"{role} has ended by itself: {_end(self.folder, role)}"
        where = _end(self.folder, role) if by_itself else f"{after_seconds * 1000:.0f} ms"
        self.deaths.append(f"{role}: {where}")

    def revive(self, calm: bool) -> None:
        """Start what is dead; unless calm, some of them with a kill point."""
        for role, process in list(self._running.items()):
            if process.exitcode is not None:
                self.kill(role, 0)
        for role in ("scheduler", "query", *AGENTS):
            if role not in self._running:
                kind = role.partition("-")[0]
                can = not calm and (role in SPOOLED or role == "scheduler")
                armed = can and self.chance.random() < 0.6
                self.start(role, killpoints.draw(kind, self.chance) if armed else None)

    def calm(self) -> None:
        """Let nothing die for a while: processes with a kill point are started again without."""
        for role in list(self._armed):
            self.kill(role, 0)
        self.revive(calm=True)

    def end(self) -> None:
        for process in self._running.values():
            process.kill()
            process.join()

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Wait for something; what dies meanwhile is revived."""
        for _ in range(PATIENCE):
            if until():
                return
            self.revive(calm=True)
            time.sleep(LOOK_SECONDS)
        raise AssertionError(f"waited for {what}")

    # ---- calls

    def jobs(self, call: str, request: Message) -> Message | None:
        """Call the scheduler until it answers; it may be killed meanwhile, and is revived.

        None when a try took effect that did not live to be answered.
        """

        def asked() -> Message | None:
            with open_channel(self._address["scheduler"]) as channel:
                method = getattr(jobs_pb2_grpc.JobsServiceStub(channel), call)
                try:
                    return method(request, timeout=CALL_SECONDS)
                except grpc.RpcError as error:
                    if error.code() is not DONE_BEFORE.get(call):
                        raise
                    return None

        return self._until(asked)

    def ask(self, statement: str) -> Counter[str]:
        """Return the paths of a query's entries, asking until there is an answer."""

        def asked() -> Counter[str]:
            found: Counter[str] = Counter()
            request = query_pb2.QueryRequest(kfl=statement, format=query_pb2.ENTRY_FORMAT_ARROW)
            with open_channel(self._address["query"]) as channel:
                stub = query_pb2_grpc.QueryServiceStub(channel)
                for response in stub.Query(request, timeout=CALL_SECONDS):
                    if response.WhichOneof("part") == "arrow_ipc":
                        with pa.ipc.open_stream(response.arrow_ipc) as stream:
                            found.update(stream.read_all()["request_path"].to_pylist())
            return found

        return self._until(asked)

    def _until(self, asked: Callable[[], object]) -> object:
        for _ in range(PATIENCE):
            try:
                return asked()
            except grpc.RpcError as error:
                if error.code() not in ASK_AGAIN:
                    raise
            self.revive(calm=True)
            time.sleep(LOOK_SECONDS)
        raise AssertionError("there was no answer")


def _end(folder: Path, role: str) -> str:
    return (folder / f"{role}.out").read_text().strip().rpartition("\n")[2]


def _ports(count: int) -> dict[str, int]:
    """Return ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(("scheduler", "query"), ports, strict=True))
