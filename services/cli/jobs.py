"""`recorder jobs`: create, list, get, watch, stop and delete recording jobs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import jobs_pb2

from services.cli.clients import CALL_SECONDS, SCHEDULER, SchedulerAddress, scheduler
from services.cli.terminal import (
    Output,
    counted,
    new_app,
    print_json,
    print_table,
    printable,
    say,
)

app = new_app(no_args_is_help=True, help="Create, list, watch, stop and delete recording jobs.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.")]
Format = Annotated[Output, typer.Option(help="Tables for people, JSON for programs.")]

MAX_UINT32 = 2**32 - 1
"""What the fields of a job can hold; the scheduler says what it takes of that."""

LONGEST_REASON = 1000
"""Characters of a reason outside of a table, where it has room."""

HEADERS = ("NAME", "STATE", "RUNS", "NEXT RUN", "ENTRIES", "STREAMS", "PACKETS", "SIZE", "KFL")


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
        int, typer.Option(min=1, max=1440, metavar="MINUTES", help="Minutes that a run lasts.")
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
    print(f"Created {job.spec.name}: {_standing(job)}.")
    say(f"Ask it with: recorder ask 'record(\"{job.spec.name}\")'")


@app.command("list")
def list_jobs(output: Format = Output.TABLE, address: SchedulerAddress = SCHEDULER) -> None:
    """List all jobs, oldest first."""
    with scheduler(address) as stub:
        jobs = stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=CALL_SECONDS).jobs
    if output is Output.JSON:
        print_json([as_json(job) for job in jobs])
    elif jobs:
        print_table(HEADERS, [_row(job) for job in jobs])
    else:
        say("There are no jobs. Create one with: recorder jobs create NAME --kfl 'http or dns'")


@app.command()
def get(name: Name, output: Format = Output.TABLE, address: SchedulerAddress = SCHEDULER) -> None:
    """Show one job and its runs."""
    with scheduler(address) as stub:
        job = stub.GetJob(jobs_pb2.GetJobRequest(name=name), timeout=CALL_SECONDS).job
    if output is Output.JSON:
        print_json(as_json(job))
        return
    for label, value in _facts(job):
        print(f"{label:<12}{value}")
    if job.runs:
        headers = (
            *("RUN", "STATE", "BEGAN", "ENDS", "EXPIRES", "ENTRIES", "STREAMS", "PACKETS"),
            *("LOST", "SIZE", "NODES", "REASON"),
        )
        print_table(headers, [_run_row(run) for run in job.runs])


@app.command()
def watch(output: Format = Output.TABLE, address: SchedulerAddress = SCHEDULER) -> None:
    """Show all jobs, then each again when it changes, until Ctrl-C. JSON has one object a line."""
    with scheduler(address) as stub:
        changes = stub.WatchJobs(jobs_pb2.WatchJobsRequest())
        for change in changes:
            if output is Output.JSON:
                print_json({"job": as_json(change.job), "deleted": change.deleted})
            else:
                print(_line(change))
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
        print(f"Stopped {job.spec.name}: {_stored(job)}.")


@app.command()
def delete(name: Name, address: SchedulerAddress = SCHEDULER) -> None:
    """Remove a job with everything that it recorded."""
    with scheduler(address) as stub:
        stub.DeleteJob(jobs_pb2.DeleteJobRequest(name=name), timeout=CALL_SECONDS)
    say(f"Deleted {name} and what it recorded.")


def as_json(job: jobs_pb2.Job) -> dict[str, Any]:
    """Return a job as JSON, in the names of the proto; numbers of 64 bits are numbers here."""
    value: dict[str, Any] = MessageToDict(
        job, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    value["state"] = state_word(job.state)
    for run, message in zip(value["runs"], job.runs, strict=True):
        run["state"] = state_word(message.state)
        for field in ("entries", "streams", "packets", "bytes", "lost_packets"):
            run[field] = getattr(message, field)
    return value


def state_word(state: jobs_pb2.JobState.ValueType) -> str:
    """Return "storage limited" for JOB_STATE_STORAGE_LIMITED."""
    try:
        name = jobs_pb2.JobState.Name(state)
    except ValueError:  # a scheduler that is newer than this client
        return f"state {int(state)}"
    return name.removeprefix("JOB_STATE_").replace("_", " ").lower()


def in_binary(size: int) -> str:
    """Return a number of octets as a person reads it: 1536 is "1.5 KiB"."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}".replace(".0 ", " ")


def _row(job: jobs_pb2.Job) -> tuple[object, ...]:
    return (
        job.spec.name,
        state_word(job.state),
        _runs(job),
        when(job.next_start_time) if job.HasField("next_start_time") else "",
        sum(run.entries for run in job.runs),
        sum(run.streams for run in job.runs),
        sum(run.packets for run in job.runs),
        in_binary(sum(run.bytes for run in job.runs)),
        job.spec.kfl,
    )


def _runs(job: jobs_pb2.Job) -> str:
    return f"{len(job.runs)}/{job.spec.daily_iterations or '∞'}"


def _run_row(run: jobs_pb2.Run) -> tuple[object, ...]:
    return (
        run.number,
        state_word(run.state),
        when(run.start_time),
        when(run.end_time),
        when(run.expire_time) if run.HasField("expire_time") else "",
        run.entries,
        run.streams,
        run.packets,
        run.lost_packets,
        in_binary(run.bytes),
        ", ".join(run.nodes),
        run.reason,
    )


def _facts(job: jobs_pb2.Job) -> Iterator[tuple[str, str]]:
    spec = job.spec
    yield "name", printable(spec.name)
    yield "state", _standing(job)
    yield "kfl", printable(spec.kfl)
    if job.expanded_kfl:
        yield "records", printable(job.expanded_kfl)
    if spec.imported:
        yield "from", "a capture file"
    else:
        yield "starts", f"{spec.start_time} UTC" if spec.start_time else "when it was created"
        yield "runs", f"{_runs(job)}, {counted(spec.duration_minutes, 'minute')} each"
    yield "kept", f"{counted(spec.expiration_minutes, 'minute')} after each run"
    yield "bodies", f"up to {in_binary(spec.body_limit)}"
    yield "created", when(job.create_time)


def _standing(job: jobs_pb2.Job) -> str:
    """Return the state, with its reason or what comes next."""
    text = state_word(job.state)
    if job.reason:
        text += f" ({printable(job.reason, LONGEST_REASON)})"
    if job.state == jobs_pb2.JOB_STATE_RECORDING and job.runs:
        text += f" until {when(job.runs[-1].end_time)}"
    elif job.HasField("next_start_time"):
        text += f", next run {when(job.next_start_time)}"
    return text


def _line(change: jobs_pb2.WatchJobsResponse) -> str:
    now = datetime.now(UTC).strftime("%H:%M:%S")
    job = change.job
    if change.deleted:
        return f"{now}  {printable(job.spec.name):<24} deleted"
    return f"{now}  {printable(job.spec.name):<24} {_standing(job)}; {_stored(job)}"


def _stored(job: jobs_pb2.Job) -> str:
    """Return how much its runs have stored."""
    entries = counted(sum(run.entries for run in job.runs), "entry", "entries")
    streams = counted(sum(run.streams for run in job.runs), "stream")
    return f"{entries} in {streams}, {in_binary(sum(run.bytes for run in job.runs))}"


def when(time: Timestamp) -> str:
    """Return a time in UTC to the second, without its date when it is within a day of now."""
    moment = time.ToDatetime(UTC)
    near = abs(moment - datetime.now(UTC)) < timedelta(hours=12)
    return moment.strftime("%H:%M:%SZ" if near else "%Y-%m-%d %H:%MZ")
