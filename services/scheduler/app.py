"""The scheduler's process: wires store, writer, lifecycle and services; the command line calls run.

A data folder belongs to one scheduler at a time; a lock keeps a second one from it.
"""

import fcntl
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from recorder.v1 import (
    ingest_pb2,
    ingest_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    live_pb2,
    live_pb2_grpc,
)

from recordings import places
from recordings.remote import Remote
from services.runtime.clock import Clock, SystemClock
from services.runtime.errors import UserError
from services.runtime.logging import logger
from services.runtime.process import run_until_signal
from services.runtime.server import serve
from services.runtime.settings import SchedulerSettings
from services.scheduler.archiver import Archiver
from services.scheduler.archives import Archives
from services.scheduler.cluster import Cluster
from services.scheduler.compactor import Compactor
from services.scheduler.ingest_rpc import IngestService
from services.scheduler.jobs_rpc import JobsService
from services.scheduler.jobstore import JobStore
from services.scheduler.lifecycle import Lifecycle
from services.scheduler.live_rpc import LiveService
from services.scheduler.quota import Quota
from services.scheduler.runs import Runs
from services.scheduler.sessions import Sessions
from services.scheduler.sharedjobs_rpc import SharedJobsService
from services.scheduler.writer import Writer

LOCK_NAME = "scheduler.lock"

WORKERS = 1024
"""Calls at once. Each agent holds one for as long as it is connected, and so does each watcher;
threads are made when they are needed first."""

CALLS_GRACE_SECONDS = 5.0
"""How long calls may go on when the scheduler ends: agents get what is being acknowledged."""


class Scheduler:
    """All of the scheduler, serving from its creation until stop()."""

    def __init__(self, settings: SchedulerSettings, clock: Clock | None = None) -> None:
        """Start it. Raises UserError and OSError with a sentence, and then nothing runs."""
        with ExitStack() as stack:
            self._start(settings, clock or SystemClock(), stack)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Take nothing new, store what has come, close everything. Jobs go on after a restart."""
        self._stack.close()

    def _start(self, settings: SchedulerSettings, clock: Clock, stack: ExitStack) -> None:
        if settings.archive and settings.storage:
            raise UserError(
                "--archive is for recordings that live on this disk, --storage for those that live "
                "elsewhere; give one of them."
            )
        stack.callback(os.close, _lock(settings.data))
        quota = Quota(settings.storage_limit)
        writer = Writer(settings.data, quota, clock)
        jobs = (_Shared if settings.database_url else _Own)(settings, writer, clock)
        stack.callback(jobs.close)
        stack.callback(writer.stop)
        writer.start()
        stack.callback(jobs.stop)
        if settings.archive or settings.storage:
            jobs.archives.turn_on(lives_elsewhere=bool(settings.storage))
        jobs.open()
        compactor = Compactor(writer, quota, clock)
        writer.merger = compactor
        stack.callback(compactor.stop)
        compactor.start()  # behind the lifecycle, which says which runs are open
        if settings.archive or settings.storage:
            archiver = _archiver(settings, jobs, writer, clock)
            stack.callback(archiver.stop)
            archiver.start()
        ingest = IngestService(writer, jobs.sessions)
        live = jobs.sessions.live

        def add_services(server: grpc.Server) -> list[str]:
            jobs_pb2_grpc.add_JobsServiceServicer_to_server(jobs.service, server)
            ingest_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server)
            live_pb2_grpc.add_LiveServiceServicer_to_server(LiveService(live), server)
            return [
                jobs_pb2.DESCRIPTOR.services_by_name["JobsService"].full_name,
                ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name,
                live_pb2.DESCRIPTOR.services_by_name["LiveService"].full_name,
            ]

        server = serve(settings.listen, add_services, WORKERS)
        self.address = server.address
        stack.callback(server.stop, CALLS_GRACE_SECONDS)
        # Before the server: agents' sessions end when what came is answered, watchers are let go,
        # and no job moves from then on.
        stack.callback(ingest.close)
        stack.callback(live.close)
        stack.callback(jobs.stop)
        jobs.start(_advertised(settings, server.address))


class _Own:
    """Jobs in a file of the data folder."""

    def __init__(self, settings: SchedulerSettings, writer: Writer, clock: Clock) -> None:
        self.name = ""
        self._store = JobStore(settings.data)
        self.sessions = Sessions(clock)
        self.archives = Archives(self._store)
        runs = Runs(writer, self.sessions.deliveries, self.sessions.matches, archives=self.archives)
        self._lifecycle = Lifecycle(settings.data, self._store, writer, clock, self.sessions, runs)
        writer.on_full = self._lifecycle.run_full
        writer.on_held = self._lifecycle.run_held
        writer.on_dropped = self._lifecycle.run_dropped
        self.service = JobsService(self._lifecycle, settings.macros)
        self.open, self.stop = self._lifecycle.start, self._lifecycle.stop
        self.close = self._store.close

    def start(self, address: str) -> None:
        """Nobody else has to know the address."""


class _Shared:
    """Jobs in a database that several schedulers share."""

    def __init__(self, settings: SchedulerSettings, writer: Writer, clock: Clock) -> None:
        cluster = Cluster(settings.data, settings.database_url, writer, clock)
        self.name = cluster.name
        self.sessions, self.archives = cluster.sessions, cluster.archives
        self.service: Any = SharedJobsService(cluster, settings.macros)
        self.open, self.start = cluster.open, cluster.start
        self.stop, self.close = cluster.stop, cluster.close


def _archiver(
    settings: SchedulerSettings, jobs: "_Own | _Shared", writer: Writer, clock: Clock
) -> Archiver:
    """Return the archiver. Of several schedulers each has a folder of its own there."""
    url = settings.storage or settings.archive
    remote = Remote(places.below(url, jobs.name) if jobs.name else url)
    moves = bool(settings.storage)
    logger(__name__).info("runs are moved" if moves else "runs are archived", to=remote.url)
    return Archiver(writer, remote, jobs.archives, clock, moves=moves)


def run(settings: SchedulerSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises UserError and OSError."""
    schedulers: list[Scheduler] = []

    def start() -> None:
        scheduler = Scheduler(settings)
        schedulers.append(scheduler)
        log = logger(__name__)
        log.info("scheduler serves", address=scheduler.address, data=str(settings.data))

    def drain() -> None:
        for scheduler in schedulers:
            scheduler.stop()

    return run_until_signal(start, drain, grace_seconds=settings.grace_seconds)


def _advertised(settings: SchedulerSettings, address: str) -> str:
    """Return where other schedulers reach this one."""
    host, _, port = address.rpartition(":")
    is_any = host in ("0.0.0.0", "[::]")  # noqa: S104
    return settings.advertise or (f"{socket.gethostname()}:{port}" if is_any else address)


def _lock(data: Path) -> int:
    """Return a descriptor that holds the data folder's lock until it is closed."""
    path = data / LOCK_NAME
    try:
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"Cannot use the data folder {data}: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UserError(
            f"Another scheduler uses the data folder {data}. Stop it, or choose another folder "
            "with --data."
        ) from error
    return descriptor
