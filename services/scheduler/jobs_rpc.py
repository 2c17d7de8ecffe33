"""JobsService: what people ask of jobs, checked before lifecycle.py sees it.

The only file of the scheduler that knows the messages of jobs.proto. A wrong request is answered
with every field that is wrong, and changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NoReturn

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

import kfl
from kfl.macros import expand
from recordings import names
from services.runtime import errors
from services.runtime.errors import Violation
from services.scheduler import timetable
from services.scheduler.jobs import Job, Run, Spec
from services.scheduler.jobstore import NameTakenError
from services.scheduler.lifecycle import Lifecycle, RefusedError
from services.scheduler.quota import StorageFullError
from services.scheduler.runs import sentence

DEFAULT_KFL = "http or dns"
DEFAULT_ITERATIONS = 1
DEFAULT_DURATION_MINUTES = 240
DEFAULT_EXPIRATION_MINUTES = 2880
DEFAULT_BODY_LIMIT = 64 << 10

MOST_ITERATIONS = 3650
"""Ten years, day by day; whoever wants more wants 0, which is for ever."""

LONGEST_DURATION_MINUTES = 1440
"""A day: runs of a job do not overlap."""

LONGEST_EXPIRATION_MINUTES = 10 * 365 * 24 * 60
"""Ten years; a larger number is a mistake, such as seconds for minutes."""

LARGEST_BODY_LIMIT = 2 << 20
"""Two bodies of it, in base64, fit into one batch of an agent."""

COUNTS_SECONDS = 1.0
"""How often a watcher learns of new counts of a run that records; states it learns at once."""


NO_MACROS: Mapping[str, str] = {}


class JobsService(jobs_pb2_grpc.JobsServiceServicer):
    """Answers for one Lifecycle."""

    def __init__(self, lifecycle: Lifecycle, macros: Mapping[str, str] = NO_MACROS) -> None:
        """`macros` are operators' words of KFL."""
        self._lifecycle = lifecycle
        self._macros = macros

    def CreateJob(  # noqa: N802 - gRPC's names
        self, request: jobs_pb2.CreateJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.CreateJobResponse:
        """Add a job; with every default filled in, it is part of the answer."""
        spec = read_spec(request.spec, self._macros)
        if not isinstance(spec, Spec):
            errors.invalid_argument(context, spec)
        try:
            job = self._lifecycle.create(spec)
        except NameTakenError as error:
            errors.already_exists(context, str(error))
        except RefusedError as error:
            errors.failed_precondition(context, str(error))
        except StorageFullError as error:
            hint = "Delete a job that is not needed, or raise the limit."
            errors.failed_precondition(context, f"{error} {hint}")
        except OSError as error:
            _unavailable(context, f"The job was not created. {sentence(error)}")
        return jobs_pb2.CreateJobResponse(job=self._message(job))

    def GetJob(  # noqa: N802
        self, request: jobs_pb2.GetJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.GetJobResponse:
        """Return one job."""
        job = self._find(request.name, context)
        return jobs_pb2.GetJobResponse(job=self._message(job))

    def ListJobs(  # noqa: N802
        self, request: jobs_pb2.ListJobsRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.ListJobsResponse:
        """Return all jobs, oldest first."""
        del request, context
        jobs = [self._message(job) for job in self._lifecycle.jobs()]
        return jobs_pb2.ListJobsResponse(jobs=jobs)

    def WatchJobs(  # noqa: N802
        self, request: jobs_pb2.WatchJobsRequest, context: grpc.ServicerContext
    ) -> Iterator[jobs_pb2.WatchJobsResponse]:
        """Send all jobs, then each that changes, until the caller or the service ends."""
        del request
        sent: dict[str, Job] = {}
        version = -1
        while context.is_active() and not self._lifecycle.is_stopping:
            # Asked for before the jobs: a change in between is then seen at the next turn.
            version = self._lifecycle.wait_for_jobs(version, COUNTS_SECONDS)
            jobs = {job.name: job for job in self._lifecycle.jobs()}
            for name in sent.keys() - jobs.keys():
                gone = self._message(sent.pop(name))
                yield jobs_pb2.WatchJobsResponse(job=gone, deleted=True)
            for name, job in jobs.items():
                if sent.get(name) != job:
                    sent[name] = job
                    yield jobs_pb2.WatchJobsResponse(job=self._message(job))

    def StopJob(  # noqa: N802
        self, request: jobs_pb2.StopJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.StopJobResponse:
        """Stop a job; what it recorded stays."""
        self._find(request.name, context)
        try:
            job = self._lifecycle.stop_job(request.name)
        except LookupError:
            self._missing(request.name, context)
        except RefusedError as error:
            errors.failed_precondition(context, str(error))
        except OSError as error:
            _unavailable(context, f"The job was not stopped. {sentence(error)}")
        return jobs_pb2.StopJobResponse(job=self._message(job))

    def DeleteJob(  # noqa: N802
        self, request: jobs_pb2.DeleteJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.DeleteJobResponse:
        """Remove a job with all that it recorded."""
        self._find(request.name, context)
        try:
            self._lifecycle.delete_job(request.name)
        except LookupError:
            self._missing(request.name, context)
        except OSError as error:
            _unavailable(context, f"The job was not deleted. {sentence(error)}")
        return jobs_pb2.DeleteJobResponse()

    def _find(self, name: str, context: grpc.ServicerContext) -> Job:
        """Return the job of that name, or abort the call."""
        try:
            names.check(name)
        except ValueError as error:
            errors.invalid_argument(context, [Violation("name", str(error))])
        job = self._lifecycle.get(name)
        return self._missing(name, context) if job is None else job

    def _missing(self, name: str, context: grpc.ServicerContext) -> NoReturn:
        near = kfl.nearest(name, [job.name for job in self._lifecycle.jobs()])
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        errors.not_found(context, f"There is no job named {name}.{hint}")

    def _message(self, job: Job) -> jobs_pb2.Job:
        spec = job.spec
        message = jobs_pb2.Job(
            spec=jobs_pb2.JobSpec(
                name=spec.name,
                kfl=spec.kfl,
                start_time=spec.start_time,
                daily_iterations=spec.daily_iterations,
                duration_minutes=spec.duration_minutes,
                expiration_minutes=spec.expiration_minutes,
                body_limit=spec.body_limit,
                imported=spec.imported,
            ),
            state=jobs_pb2.JobState.ValueType(job.state),
            reason=job.reason,
            create_time=_timestamp(job.create_time),
            expanded_kfl=spec.expanded_kfl,
            runs=[_run_message(job, run) for run in job.runs],
        )
        for start in timetable.next_starts(job, self._lifecycle.now(), 1):
            message.next_start_time.CopyFrom(_timestamp(start))
        return message


def read_spec(
    message: jobs_pb2.JobSpec, macros: Mapping[str, str] = NO_MACROS
) -> Spec | list[Violation]:
    """Return what was asked for with its defaults, or all that is wrong with it."""
    wrong: list[Violation] = []

    def check(field: str, test: Callable[[], object]) -> None:
        try:
            test()
        except ValueError as error:
            wrong.append(Violation(f"spec.{field}", str(error)))

    def number(field: str, default: int, least: int, most: int, unit: str) -> int:
        value: int = getattr(message, field) if message.HasField(field) else default  # type: ignore[arg-type]
        check(field, lambda: _within(value, least, most, unit))
        return value

    text = message.kfl if message.kfl.strip() else DEFAULT_KFL
    check("name", lambda: names.check(message.name))
    check("kfl", lambda: _check_filter(text, macros))
    if message.start_time:
        check("start_time", lambda: timetable.parse_start(message.start_time))
    spec = Spec(
        name=message.name,
        kfl=text,
        start_time=message.start_time,
        daily_iterations=number(
            "daily_iterations", DEFAULT_ITERATIONS, 0, MOST_ITERATIONS, "days, where 0 is for ever"
        ),
        duration_minutes=number(
            "duration_minutes", DEFAULT_DURATION_MINUTES, 1, LONGEST_DURATION_MINUTES, "minutes"
        ),
        expiration_minutes=number(
            "expiration_minutes",
            DEFAULT_EXPIRATION_MINUTES,
            1,
            LONGEST_EXPIRATION_MINUTES,
            "minutes",
        ),
        body_limit=number("body_limit", DEFAULT_BODY_LIMIT, 0, LARGEST_BODY_LIMIT, "octets"),
        imported=message.imported,
    )
    if spec.imported and spec.start_time:
        sentence = "An imported job begins when it is created; leave the start time empty."
        wrong.append(Violation("spec.start_time", sentence))
    if spec.imported and spec.daily_iterations != 1:
        sentence = "An imported job has one run; leave the number of days unset."
        wrong.append(Violation("spec.daily_iterations", sentence))
    if wrong:
        return wrong
    expanded = expand(text, macros)
    return spec if expanded == text else replace(spec, expanded_kfl=expanded)


def _within(value: int, least: int, most: int, unit: str) -> None:
    if not least <= value <= most:
        raise ValueError(f"{value} is out of range: {least} to {most} {unit}.")


def _check_filter(text: str, macros: Mapping[str, str]) -> None:
    """Raise ValueError with all that is wrong with a job's filter."""
    found = [diagnostic for diagnostic in kfl.check(text, macros) if diagnostic.is_error]
    if found:
        sentences = (
            f"line {d.line}, column {d.column}: {d.message} {d.suggestion}".strip() for d in found
        )
        raise ValueError(" ".join(sentences))
    if not kfl.compile(expand(text, macros)).needs_live:  # as agents will
        raise ValueError(
            "This asks only what is recorded already, because of record(); a job records live "
            "traffic. Leave record() out, or ask the query service."
        )


def _run_message(job: Job, run: Run) -> jobs_pb2.Run:
    message = jobs_pb2.Run(
        number=run.number,
        state=jobs_pb2.JobState.ValueType(run.state),
        reason=run.reason,
        start_time=_timestamp(run.start_time),
        end_time=_timestamp(run.end_time),
        entries=run.entries,
        streams=run.streams,
        packets=run.packets,
        bytes=run.bytes,
        lost_packets=run.lost_packets,
        nodes=run.nodes,
    )
    if not run.is_recording:
        message.expire_time.CopyFrom(_timestamp(run.end_time + job.spec.expiration))
    return message


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _unavailable(context: grpc.ServicerContext, sentence: str) -> NoReturn:
    """Abort the call because of the disk: the same call may succeed later."""
    context.abort(grpc.StatusCode.UNAVAILABLE, sentence)
    raise AssertionError("grpc's abort always raises")
