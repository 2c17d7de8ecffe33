"""JobsService: what people ask of jobs, checked before lifecycle.py sees it.

A wrong request is answered with every field that is wrong, and changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import NoReturn

import grpc
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

import kfl
from recordings import names
from services.runtime import errors
from services.runtime.errors import Violation
from services.scheduler import amendments, jobspecs
from services.scheduler.amendments import Amendment, RefusedError
from services.scheduler.jobmessages import add_agents, add_counts, change_message, job_message
from services.scheduler.jobs import Job, JobState, Spec
from services.scheduler.jobspecs import NO_MACROS, read_spec
from services.scheduler.jobstore import NameTakenError
from services.scheduler.lifecycle import Lifecycle
from services.scheduler.listing import Question, page
from services.scheduler.quota import StorageFullError
from services.scheduler.runs import sentence

COUNTS_SECONDS = 1.0
"""How often a watcher learns of new counts of a run that records; states it learns at once."""


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
        """Return one job, the agents of its runs, and its history."""
        job = self._find(request.name, context)
        message = self._message(job)
        for run in message.runs:
            add_agents(run, self._lifecycle.agents(job.name, run.number))
            add_counts(run, job.name, self._lifecycle.counts(job.name, run.number))
        changes = [change_message(event) for event in self._lifecycle.history(job.name)]
        return jobs_pb2.GetJobResponse(job=message, changes=changes)

    def ListJobs(  # noqa: N802
        self, request: jobs_pb2.ListJobsRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.ListJobsResponse:
        """Return one page of the jobs that fit, oldest first."""
        try:
            states = [JobState(state) for state in request.states]
            question = Question(request.search, states, request.labels)
            of = (request.page_size, request.page_token)
            jobs, token = page(question, self._lifecycle.jobs(), *of)
        except ValueError as error:
            errors.invalid_argument(context, [Violation("", str(error))])
        messages = [self._message(job) for job in jobs]
        return jobs_pb2.ListJobsResponse(jobs=messages, next_page_token=token)

    def WatchJobs(  # noqa: N802
        self, request: jobs_pb2.WatchJobsRequest, context: grpc.ServicerContext
    ) -> Iterator[jobs_pb2.WatchJobsResponse]:
        """Send all jobs, then each that changes, until the caller or the service ends."""
        sent: dict[str, Job] = {}
        version, synced = -1, -1
        while context.is_active() and not self._lifecycle.is_stopping:
            # Asked for before the jobs: a change in between is then seen at the next turn.
            version = self._lifecycle.wait_for_jobs(version, COUNTS_SECONDS)
            revision, listed = self._lifecycle.snapshot()
            jobs = {job.name: job for job in listed}
            is_reset = False
            if synced < 0 and request.after_revision:
                changed = self._lifecycle.changed_since(request.after_revision, revision)
                is_reset = changed is None
                if changed is not None:
                    sent = {n: job for n, job in jobs.items() if n not in changed}
                    for name in sorted(changed - jobs.keys()):
                        gone = jobs_pb2.Job(spec=jobs_pb2.JobSpec(name=name))
                        yield jobs_pb2.WatchJobsResponse(job=gone, deleted=True)
            for job, is_gone in _changed(sent, jobs):
                yield jobs_pb2.WatchJobsResponse(job=self._message(job), deleted=is_gone)
            if revision != synced:
                synced = revision
                yield jobs_pb2.WatchJobsResponse(revision=revision, synced=True, reset=is_reset)

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

    def ExtendJob(  # noqa: N802
        self, request: jobs_pb2.ExtendJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.ExtendJobResponse:
        """Give a job more time."""
        fields = ("duration_minutes", "daily_iterations", "expiration_minutes")
        asked = [getattr(request, f) if request.HasField(f) else None for f in fields]  # type: ignore[arg-type]
        wrong = jobspecs.check_minutes(asked[0], asked[2]) + jobspecs.check_iterations(asked[1])
        if asked == [None, None, None]:
            wrong.append(Violation("", "Say what to extend: duration, iterations or expiration."))
        job = self._amend(request.name, wrong, amendments.extend(*asked), context)
        return jobs_pb2.ExtendJobResponse(job=job)

    def PinJob(  # noqa: N802
        self, request: jobs_pb2.PinJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.PinJobResponse:
        """Keep what a job or a run has recorded."""
        return jobs_pb2.PinJobResponse(job=self._pin(request, True, context))

    def UnpinJob(  # noqa: N802
        self, request: jobs_pb2.UnpinJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.UnpinJobResponse:
        """Keep it no longer than its expiration."""
        return jobs_pb2.UnpinJobResponse(job=self._pin(request, False, context))

    def _pin(
        self,
        request: jobs_pb2.PinJobRequest | jobs_pb2.UnpinJobRequest,
        pinned: bool,
        context: grpc.ServicerContext,
    ) -> jobs_pb2.Job:
        wrong = []
        try:
            jobspecs.check_text(request.reason)
        except ValueError as error:
            wrong.append(Violation("reason", str(error)))
        change = amendments.pin(request.run, request.reason.strip(), pinned)
        return self._amend(request.name, wrong, change, context)

    def _amend(
        self,
        name: str,
        wrong: list[Violation],
        change: Callable[[Job, datetime], Amendment],
        context: grpc.ServicerContext,
    ) -> jobs_pb2.Job:
        self._find(name, context)
        if wrong:
            errors.invalid_argument(context, wrong)
        try:
            job = self._lifecycle.amend(name, change)
        except LookupError:
            self._missing(name, context)
        except RefusedError as error:
            errors.failed_precondition(context, str(error))
        except OSError as error:
            _unavailable(context, f"The job was not changed. {sentence(error)}")
        return self._message(job)

    def DeleteJob(  # noqa: N802
        self, request: jobs_pb2.DeleteJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.DeleteJobResponse:
        """Remove a job with all that it recorded."""
        self._find(request.name, context)
        try:
            self._lifecycle.delete_job(request.name, request.force)
        except LookupError:
            self._missing(request.name, context)
        except RefusedError as error:
            errors.failed_precondition(context, str(error))
        except OSError as error:
            _unavailable(context, f"The job was not deleted. {sentence(error)}")
        return jobs_pb2.DeleteJobResponse()

    def ForecastJob(  # noqa: N802
        self, request: jobs_pb2.ForecastJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.ForecastJobResponse:
        """Tell how much a job would record."""
        asked = jobspecs.read_forecast(request, self._macros)
        if isinstance(asked, list):
            errors.invalid_argument(context, asked)
        try:
            found = self._lifecycle.forecast(*asked)
        except RefusedError as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        return jobs_pb2.ForecastJobResponse(
            agents=found.agents,
            answered=len(found.answers),
            probe_seconds=found.seconds,
            entries_per_second=found.entries,
            streams_per_second=found.streams,
            bytes_per_second=found.bytes,
            expected_bytes=found.expected,
            free_bytes=found.free,
            fits=found.fits,
            full_after_minutes=found.full_after,
            past_bytes_per_second=found.past,
            summary=found.summary,
        )

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
        return job_message(job, self._lifecycle.now())


def _changed(sent: dict[str, Job], jobs: Mapping[str, Job]) -> Iterator[tuple[Job, bool]]:
    """Yield the jobs that are not as they were sent, and whether they are gone; note them."""
    for name in sent.keys() - jobs.keys():
        yield sent.pop(name), True
    for name, job in jobs.items():
        if sent.get(name) != job:
            sent[name] = job
            yield job, False


def _unavailable(context: grpc.ServicerContext, sentence: str) -> NoReturn:
    """Abort the call because of the disk: the same call may succeed later."""
    context.abort(grpc.StatusCode.UNAVAILABLE, sentence)
    raise AssertionError("grpc's abort always raises")
