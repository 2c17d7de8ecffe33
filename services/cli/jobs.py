"""`recorder jobs`: create, list, get, watch, stop, extend, pin and delete recording jobs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from recorder.v1 import jobs_pb2

from services.cli.clients import CALL_SECONDS, SCHEDULER, SchedulerAddress, scheduler
from services.cli.jobviews import (
    HEADERS,
    agent_rows,
    as_json,
    change_as_json,
    change_rows,
    count_rows,
    facts,
    line,
    run_rows,
    standing,
    stored,
    summary_row,
)
from services.cli.terminal import Output, new_app, print_json, print_table, say
from services.runtime.errors import UserError
from services.scheduler.quota import parse_size

app = new_app(
    no_args_is_help=True, help="Create, list, watch, stop, extend, pin and delete recording jobs."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.")]
Format = Annotated[Output, typer.Option(help="Tables for people, JSON for programs.")]

PAGE = 1000
"""Jobs that are asked for at once."""

MAX_UINT32 = 2**32 - 1
"""What the fields of a job can hold; the scheduler says what it takes of that."""


class RunMissed(StrEnum):
    """What becomes of a run whose start passed while the scheduler was away."""

    LATE = "late"
    SKIP = "skip"


class OnFull(StrEnum):
    """What becomes of a run when there is no room for more."""

    STOP = "stop"
    DROP_OLDEST = "drop-oldest"


class State(StrEnum):
    """States of jobs, as people write them."""

    SCHEDULED = "scheduled"
    RECORDING = "recording"
    WAITING = "waiting"
    COMPLETED = "completed"
    STOPPED = "stopped"
    STORAGE_LIMITED = "storage-limited"
    FAILED = "failed"
    EXPIRED = "expired"


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help='Name of the recording, used as record("name").')
    ],
    kfl: Annotated[
        str,
        typer.Option(
            metavar="KFL",
            help="Streams in which an entry matches this are recorded.",
        ),
    ] = "http or dns",
    start: Annotated[
        str, typer.Option(metavar="HH:MM", help="Start time of the day, in UTC; now if not given.")
    ] = "",
    iterations: Annotated[
        int,
        typer.Option(min=0, max=MAX_UINT32, metavar="DAYS", help="Days in a row; 0 is for ever."),
    ] = 1,
    duration: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_UINT32,
            metavar="MINUTES",
            help="Minutes that a run lasts; with more than one day at most 1440.",
        ),
    ] = 240,
    expiration: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_UINT32, metavar="MINUTES", help="Minutes that data is kept after a run."
        ),
    ] = 2880,
    body_limit: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_UINT32, metavar="BYTES", help="Most octets of each body that are kept."
        ),
    ] = 65536,
    run_missed: Annotated[
        RunMissed,
        typer.Option(
            help="A run whose start passed while the scheduler was away begins late, or is skipped."
        ),
    ] = RunMissed.LATE,
    size_limit: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Most that all of its runs may have on disk, as in 5Gi."),
    ] = "",
    on_full: Annotated[
        OnFull,
        typer.Option(help="At a limit: end the job, or drop its own oldest data and go on."),
    ] = OnFull.STOP,
    pin: Annotated[
        bool, typer.Option("--pin", help="Remove nothing of it until it is unpinned.")
    ] = False,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label; may be repeated.")
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    output: Format = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Create a recording job."""
    spec = jobs_pb2.JobSpec(
        name=name,
        kfl=kfl,
        start_time=start,
        daily_iterations=iterations,
        duration_minutes=duration,
        expiration_minutes=expiration,
        body_limit=body_limit,
        run_missed=jobs_pb2.RunMissed.Value(f"RUN_MISSED_{run_missed.name}"),
        size_limit_bytes=_size(size_limit) if size_limit else 0,
        on_full=jobs_pb2.OnFull.Value(f"ON_FULL_{on_full.name}"),
        pinned=pin,
        labels=_labels(label or []),
        description=description,
    )
    with scheduler(address, kfl) as stub:
        request = jobs_pb2.CreateJobRequest(spec=spec)
        job = stub.CreateJob(request, timeout=CALL_SECONDS).job
    from services.cli import statement

    for warning in statement.warnings(kfl):
        say(warning)
    if output is Output.JSON:
        print_json(as_json(job))
        return
    print(f"Created {job.spec.name}: {standing(job)}.")
    say(f"Ask it with: recorder ask 'record(\"{job.spec.name}\")'")


@app.command("list")
def list_jobs(
    search: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Words in name, statement, description or labels."),
    ] = "",
    state: Annotated[
        list[State] | None, typer.Option(help="Jobs in this state; may be repeated.")
    ] = None,
    labels: Annotated[
        str, typer.Option("--labels", "-l", metavar="SELECTOR", help="As in 'team=shop,!old'.")
    ] = "",
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Most jobs to list; 0 is all.")
    ] = 0,
    output: Format = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """List jobs, oldest first, those to come with their next starts in UTC."""
    states = [jobs_pb2.JobState.Value(f"JOB_STATE_{s.name}") for s in state or []]
    request = jobs_pb2.ListJobsRequest(search=search, states=states, labels=labels)
    jobs: list[jobs_pb2.Job] = []
    with scheduler(address) as stub:
        while True:
            request.page_size = min(limit - len(jobs), PAGE) if limit else 0
            answer = stub.ListJobs(request, timeout=CALL_SECONDS)
            jobs += answer.jobs
            request.page_token = answer.next_page_token
            if not request.page_token or (limit and len(jobs) >= limit):
                break
    if output is Output.JSON:
        print_json([as_json(job) for job in jobs])
    elif jobs:
        print_table(HEADERS, [summary_row(job) for job in jobs])
    elif search or states or labels:
        say("No job fits.")
    else:
        say("There are no jobs. Create one with: recorder jobs create NAME --kfl 'http or dns'")


@app.command()
def get(
    name: Name,
    history: Annotated[bool, typer.Option("--history", help="Show every change too.")] = False,
    output: Format = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Show one job, its runs, and the agents of each run."""
    with scheduler(address) as stub:
        answer = stub.GetJob(jobs_pb2.GetJobRequest(name=name), timeout=CALL_SECONDS)
    job = answer.job
    if output is Output.JSON:
        changes = [change_as_json(change) for change in answer.changes]
        print_json(as_json(job) | {"changes": changes})
        return
    for label, value in facts(job):
        print(f"{label:<13}{value}")
    if job.runs:
        print_table(*run_rows(job.runs))
        for run in job.runs:
            if run.completeness:
                print(f"Run {run.number}: {run.completeness}")
    agents = agent_rows(job.runs)
    if agents[1]:
        print_table(*agents)
    counts = count_rows(job.runs)
    if counts[1]:
        print_table(*counts)
    if history:
        print_table(*change_rows(answer.changes))


@app.command()
def watch(
    after: Annotated[
        int,
        typer.Option(min=0, metavar="REVISION", help="Show what has changed since this revision."),
    ] = 0,
    output: Format = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Show all jobs, then each again when it changes, until Ctrl-C. JSON has one object a line.

    An object {"synced":true,"revision":N} says that everything up to N was shown; a watch that
    was interrupted goes on with --after N.
    """
    with scheduler(address) as stub:
        changes = stub.WatchJobs(jobs_pb2.WatchJobsRequest(after_revision=after))
        for change in changes:
            if output is Output.TABLE:
                if not change.synced:
                    print(line(change))
                elif change.reset:
                    say(f"What changed after {after} is not known any more; these are all jobs.")
            elif change.synced:
                synced = {"synced": True, "revision": change.revision, "reset": change.reset}
                print_json(synced)
            else:
                print_json({"job": as_json(change.job), "deleted": change.deleted})
            # Whoever reads a pipe wants each change when it comes.
            print(end="", flush=True)


@app.command()
def stop(name: Name, output: Format = Output.TABLE, address: SchedulerAddress = SCHEDULER) -> None:
    """End a job's run and all later ones; what it recorded stays."""
    with scheduler(address) as stub:
        job = stub.StopJob(jobs_pb2.StopJobRequest(name=name), timeout=CALL_SECONDS).job
    if output is Output.JSON:
        print_json(as_json(job))
    else:
        print(f"Stopped {job.spec.name}: {stored(job)}.")


@app.command()
def extend(
    name: Name,
    duration: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_UINT32,
            metavar="MINUTES",
            help="New length of the run that records; when none does, of those to come.",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_UINT32, metavar="DAYS", help="New number of days; 0 is for ever."
        ),
    ] = None,
    expiration: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_UINT32,
            metavar="MINUTES",
            help="New time that data is kept after a run, also after those that have ended.",
        ),
    ] = None,
    output: Format = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Give a job more time; nothing is ever made shorter."""
    request = jobs_pb2.ExtendJobRequest(
        name=name,
        duration_minutes=duration,
        daily_iterations=iterations,
        expiration_minutes=expiration,
    )
    if duration is iterations is expiration is None:
        raise UserError("Say what to extend, with --duration, --iterations or --expiration.")
    with scheduler(address) as stub:
        job = stub.ExtendJob(request, timeout=CALL_SECONDS).job
    _show("Extended", job, output)


OfRun = Annotated[
    int, typer.Option("--run", min=0, max=MAX_UINT32, metavar="N", help="Of this run only.")
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the history.")]


@app.command()
def pin(
    name: Name,
    run: OfRun = 0,
    reason: Reason = "",
    output: Format = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Keep what a job or a run has recorded, whatever its expiration says, until it is unpinned."""
    request = jobs_pb2.PinJobRequest(name=name, run=run, reason=reason)
    with scheduler(address) as stub:
        job = stub.PinJob(request, timeout=CALL_SECONDS).job
    _show("Pinned", job, output)


@app.command()
def unpin(
    name: Name,
    run: OfRun = 0,
    reason: Reason = "",
    output: Format = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Take a pin off. Data whose expiration has passed meanwhile is removed at once."""
    request = jobs_pb2.UnpinJobRequest(name=name, run=run, reason=reason)
    with scheduler(address) as stub:
        job = stub.UnpinJob(request, timeout=CALL_SECONDS).job
    _show("Unpinned", job, output)


@app.command()
def delete(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also when it is pinned.")] = False,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Remove a job with everything that it recorded."""
    with scheduler(address) as stub:
        request = jobs_pb2.DeleteJobRequest(name=name, force=force)
        stub.DeleteJob(request, timeout=CALL_SECONDS)
    say(f"Deleted {name} and what it recorded.")


@app.command()
def forecast(
    kfl: Annotated[
        str, typer.Option(metavar="KFL", help="The statement of the job.")
    ] = "http or dns",
    duration: Annotated[
        int, typer.Option(min=1, max=MAX_UINT32, metavar="MINUTES", help="Minutes of a run.")
    ] = 240,
    probe: Annotated[
        int,
        typer.Option(min=1, max=60, metavar="SECONDS", help="How long agents try the statement."),
    ] = 5,
    body_limit: Annotated[
        int, typer.Option(min=0, max=MAX_UINT32, metavar="BYTES", help="As with create.")
    ] = 65536,
    output: Format = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Tell how much a job would record, and whether it fits: agents try it and store nothing."""
    request = jobs_pb2.ForecastJobRequest(
        kfl=kfl, duration_minutes=duration, probe_seconds=probe, body_limit=body_limit
    )
    with scheduler(address, kfl) as stub:
        found = stub.ForecastJob(request, timeout=probe + CALL_SECONDS)
    if output is Output.JSON:
        value = MessageToDict(
            found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        print_json(value | {f: getattr(found, f) for f in ("expected_bytes", "free_bytes")})
    else:
        print(found.summary)


def _show(done: str, job: jobs_pb2.Job, output: Output) -> None:
    if output is Output.JSON:
        print_json(as_json(job))
    else:
        print(f"{done} {job.spec.name}: {standing(job)}.")


def _labels(texts: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in labels:
            raise UserError(f"--label: {text[:80]!a}: write NAME=VALUE, each name once.")
        labels[name] = value
    return labels


def _size(text: str) -> int:
    """Return the octets of "5Gi" or "500MB"; UserError for another text."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise UserError(f"--size-limit: {error}") from None
