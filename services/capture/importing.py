"""Record a capture file as an imported job. The command line calls it.

The file goes through the same agent as frames from the wire; only its uplink waits where a live one
would drop.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from services.capture import frames
from services.capture.agent import Agent, new_engine_factory
from services.capture.frames.batch import FrameBatch, FrameSource, Loss
from services.capture.uplink import Uplink
from services.runtime.channel import open_channel
from services.runtime.errors import UserError, read_violations
from services.runtime.logging import logger

ASSIGNMENT_SECONDS = 30.0
"""A scheduler that has made the job assigns it at once; longer than this, something is wrong."""

STALL_SECONDS = 60.0
"""An import in which nothing is acknowledged for this long has failed."""

COMPLETION_SECONDS = 60.0
"""Longest time from the last acknowledgement to the end of the run: its journal becomes Parquet."""

NODE = "import"
"""Name of the node in the entries of an imported file."""

LOOK_SECONDS = 0.1
"""How often the scheduler is asked whether the run has ended, and the uplink whether it moves."""

CALL_SECONDS = 30.0
"""Longest time for one call to the scheduler."""

MEMORY_BYTES = 32 << 20
"""Of batches under way; the file is read no faster than they are acknowledged."""

ENDED = (
    jobs_pb2.JOB_STATE_COMPLETED,
    jobs_pb2.JOB_STATE_STOPPED,
    jobs_pb2.JOB_STATE_STORAGE_LIMITED,
    jobs_pb2.JOB_STATE_FAILED,
    jobs_pb2.JOB_STATE_EXPIRED,
)

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file."""

    job: str
    run: int
    frames: int
    octets: int
    entries: int
    streams: int
    packets: int
    state: str
    """The job's state in lower case, as in `completed` or `storage_limited`."""
    reason: str
    """Why, as a sentence; empty where there is nothing to add."""


class _Watched:
    """A source that tells how far it is."""

    def __init__(self, source: FrameSource, progress: Callable[[int, int], None]) -> None:
        self._source = source
        self._progress = progress

    def batches(self) -> Iterator[FrameBatch]:
        frames_read = octets_read = 0
        for batch in self._source.batches():
            yield batch
            frames_read += len(batch.frames)
            octets_read += int(batch.frames["captured_length"].sum())
            self._progress(frames_read, octets_read)

    def losses(self) -> list[Loss]:
        return self._source.losses()

    def close(self) -> None:
        self._source.close()


def import_file(
    path: Path | str,
    job: str,
    kfl: str,
    scheduler_address: str,
    body_limit: int | None = None,
    progress: Callable[[int, int], None] = lambda _frames, _octets: None,
) -> ImportReport:
    """Create an imported job, send it what the file holds, and wait until the run has ended.

    `progress` is called with the frames and octets read so far, on the caller's thread. None as
    `body_limit` is the scheduler's default. "-" is standard input.
    Raises CaptureError when the file cannot be read, and UserError when the scheduler does not take
    the job or its data; no job is left behind then.
    """
    source = frames.open_capture(path)
    try:
        with open_channel(scheduler_address) as channel:
            jobs = jobs_pb2_grpc.JobsServiceStub(channel)
            _create(jobs, job, kfl, body_limit, scheduler_address)
            try:
                return _deliver(_Watched(source, progress), jobs, job, scheduler_address)
            except BaseException:
                # Also on Ctrl-C: half a file is not a recording.
                _delete(jobs, job)
                raise
    finally:
        source.close()


def _deliver(
    source: FrameSource, jobs: jobs_pb2_grpc.JobsServiceStub, job: str, address: str
) -> ImportReport:
    uplink = Uplink(address, NODE, "", memory_limit=MEMORY_BYTES, import_job=job, blocking=True)
    uplink.start()
    try:
        run = _assigned_run(uplink, job, address)
        agent = Agent(
            source, new_engine_factory(NODE, ""), uplink, NODE, replay=True, ignore_times=True
        )
        watch = _Watch(uplink)
        agent.run(watch.stop)
        while not uplink.flush(LOOK_SECONDS) and not watch.stop.is_set():
            pass
        watch.end()
    finally:
        uplink.stop()
    if watch.has_stalled:
        raise UserError(
            f"The scheduler at {address} acknowledged nothing for {STALL_SECONDS:.0f} s, so the "
            f"import of {job!r} was given up. {uplink.failure}".rstrip()
        )
    ended = _wait_for_end(jobs, job, address)
    if uplink.counters.refused and ended.state == jobs_pb2.JOB_STATE_COMPLETED:
        raise UserError(
            f"The scheduler did not store {uplink.counters.refused} parts of {job!r}: "
            f"{uplink.refusal}"
        )
    done = agent.progress
    return ImportReport(
        job,
        run,
        done.frames,
        done.octets,
        done.entries,
        done.streams,
        done.packets,
        jobs_pb2.JobState.Name(ended.state).removeprefix("JOB_STATE_").lower(),
        ended.reason,
    )


class _Watch:
    """Looks from a thread whether an import moves; sets `stop` when not, or when it is unwanted."""

    def __init__(self, uplink: Uplink) -> None:
        self.stop = threading.Event()
        self.has_stalled = False
        self._uplink = uplink
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="import-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        moved, acknowledged = time.monotonic(), -1
        while not self._ended.wait(LOOK_SECONDS):
            now_acknowledged = self._uplink.counters.acknowledged
            if now_acknowledged != acknowledged or self._uplink.is_idle:
                moved, acknowledged = time.monotonic(), now_acknowledged
            if not self._uplink.assignments:
                self.stop.set()  # stopped, deleted, or its storage limit is reached
            if time.monotonic() - moved > STALL_SECONDS:
                self.has_stalled = True
                self.stop.set()
                self._uplink.stop()
                return


def _assigned_run(uplink: Uplink, job: str, address: str) -> int:
    """Wait until the scheduler wants the job's data; return the number of its run."""
    deadline = time.monotonic() + ASSIGNMENT_SECONDS
    while time.monotonic() < deadline:
        for assignment in uplink.assignments:
            if assignment.job == job:
                return assignment.run
        uplink.wait_for_assignments(uplink.revision, LOOK_SECONDS)
    raise UserError(
        f"The scheduler at {address} did not begin the import of {job!r} within "
        f"{ASSIGNMENT_SECONDS:.0f} s. {uplink.failure}".rstrip()
    )


def _create(
    jobs: jobs_pb2_grpc.JobsServiceStub, name: str, kfl: str, body_limit: int | None, address: str
) -> None:
    spec = jobs_pb2.JobSpec(name=name, kfl=kfl, imported=True)
    if body_limit is not None:
        spec.body_limit = body_limit
    try:
        jobs.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        raise UserError(_sentence(error, address)) from None


def _delete(jobs: jobs_pb2_grpc.JobsServiceStub, name: str) -> None:
    try:
        jobs.DeleteJob(jobs_pb2.DeleteJobRequest(name=name), timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            _log.error("a part of an import is left behind", job=name, reason=error.details())


def _wait_for_end(jobs: jobs_pb2_grpc.JobsServiceStub, name: str, address: str) -> jobs_pb2.Job:
    deadline = time.monotonic() + COMPLETION_SECONDS
    while True:
        try:
            job: jobs_pb2.Job = jobs.GetJob(
                jobs_pb2.GetJobRequest(name=name), timeout=CALL_SECONDS
            ).job
        except grpc.RpcError as error:
            raise UserError(_sentence(error, address)) from None
        if job.state in ENDED:
            return job
        if time.monotonic() > deadline:
            raise UserError(
                f"The scheduler at {address} has all data of {name!r}, but did not complete the "
                f"job within {COMPLETION_SECONDS:.0f} s."
            )
        time.sleep(LOOK_SECONDS)


def _sentence(error: grpc.RpcError, address: str) -> str:
    """Return what people should read about a failed call."""
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return f"There is no scheduler at {address} ({details})."
    return " ".join(v.description for v in read_violations(error)) or details
