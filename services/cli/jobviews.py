"""Jobs as `recorder jobs` shows them: rows of tables, lines, and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import jobs_pb2

from services.cli.terminal import counted, printable

LONGEST_REASON = 1000
"""Characters of a reason outside of a table, where it has room."""

HEADERS = ("NAME", "STATE", "RUNS", "NEXT RUN", "ENTRIES", "STREAMS", "PACKETS", "SIZE", "KFL")

Table = tuple[tuple[str, ...], list[tuple[object, ...]]]
"""Headers and rows."""


def as_json(job: jobs_pb2.Job) -> dict[str, Any]:
    """Return a job as JSON, in the names of the proto; numbers of 64 bits are numbers here."""
    value: dict[str, Any] = MessageToDict(
        job, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    value["state"] = state_word(job.state)
    spec = value["spec"]
    spec["run_missed"] = _word(jobs_pb2.RunMissed, job.spec.run_missed)
    spec["on_full"] = _word(jobs_pb2.OnFull, job.spec.on_full)
    spec["size_limit_bytes"] = job.spec.size_limit_bytes
    for run, message in zip(value["runs"], job.runs, strict=True):
        run["state"] = state_word(message.state)
        for agent, of in zip(run["agents"], message.agents, strict=True):
            agent["state"] = _word(jobs_pb2.AgentState, of.state)
            agent |= {"batches": of.batches, "bytes": of.bytes}
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


def change_as_json(change: jobs_pb2.JobChange) -> dict[str, Any]:
    """Return one change of a job as JSON."""
    value: dict[str, Any] = MessageToDict(
        change, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    value["revision"] = change.revision
    for field in ("from_state", "to_state"):
        state = getattr(change, field)
        value[field] = state_word(state) if state else None
    return value


def in_binary(size: int) -> str:
    """Return a number of octets as a person reads it: 1536 is "1.5 KiB"."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}".replace(".0 ", " ")


def summary_row(job: jobs_pb2.Job) -> tuple[object, ...]:
    """Return a job's row under HEADERS."""
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


def run_rows(
    runs: Iterable[jobs_pb2.Run],
) -> Table:
    """Return headers and rows of a table of runs."""
    headers = (
        *("RUN", "STATE", "BEGAN", "ENDS", "EXPIRES", "ENTRIES", "STREAMS", "PACKETS"),
        *("LOST", "SIZE", "NODES", "REASON"),
    )
    return headers, [_run_row(run) for run in runs]


def agent_rows(
    runs: Iterable[jobs_pb2.Run],
) -> Table:
    """Return headers and rows of a table of the agents of runs."""
    headers = (
        *("RUN", "NODE", "AGENT", "STATE", "JOINED", "LAST HEARD", "LAST DATA", "FINISHED"),
        *("BATCHES", "SENT"),
    )
    rows: list[tuple[object, ...]] = [
        (
            run.number,
            agent.node,
            agent.agent_id,
            _word(jobs_pb2.AgentState, agent.state),
            when(agent.join_time),
            when(agent.heard_time),
            when(agent.data_time) if agent.HasField("data_time") else "",
            when(agent.finish_time) if agent.HasField("finish_time") else "",
            agent.batches,
            in_binary(agent.bytes),
        )
        for run in runs
        for agent in run.agents
    ]
    return headers, rows


def count_rows(runs: Iterable[jobs_pb2.Run]) -> Table:
    """Return headers and rows of a table of what nodes have seen of runs, and lost."""

    def amount(packets: int, octets: int) -> str:
        return f"{packets} ({in_binary(octets)})"

    rows: list[tuple[object, ...]] = [
        (
            run.number,
            node.node,
            amount(node.seen_packets, node.seen_bytes),
            amount(node.matched_packets, node.matched_bytes),
            amount(node.stored_packets, node.stored_bytes),
            ", ".join(f"{lost.times} {lost.kind.replace('_', ' ')}" for lost in node.lost),
        )
        for run in runs
        for node in run.counts
    ]
    return ("RUN", "NODE", "SEEN", "MATCHED", "STORED", "LOSSES"), rows


def change_rows(
    changes: Iterable[jobs_pb2.JobChange],
) -> Table:
    """Return headers and rows of a table of the changes of a job."""
    rows: list[tuple[object, ...]] = [
        (
            change.revision,
            when(change.time),
            change.run or "",
            state_word(change.from_state) if change.from_state else "",
            state_word(change.to_state) if change.to_state else "deleted",
            change.reason,
        )
        for change in changes
    ]
    return ("REVISION", "TIME", "RUN", "FROM", "TO", "REASON"), rows


def _word(kind: Any, number: int) -> str:
    """Return "drop-oldest" for ON_FULL_DROP_OLDEST."""
    try:
        name: str = kind.Name(number)
    except ValueError:  # a scheduler that is newer than this client
        return str(number)
    prefix = kind.Name(0).removesuffix("UNSPECIFIED")
    return name.removeprefix(prefix).replace("_", "-").lower()


def _run_row(run: jobs_pb2.Run) -> tuple[object, ...]:
    return (
        run.number,
        state_word(run.state),
        when(run.start_time),
        when(run.end_time),
        "pinned" if run.pinned else when(run.expire_time) if run.HasField("expire_time") else "",
        run.entries,
        run.streams,
        run.packets,
        run.lost_packets,
        in_binary(run.bytes),
        ", ".join(run.nodes),
        run.reason,
    )


def facts(job: jobs_pb2.Job) -> Iterator[tuple[str, str]]:
    """Yield what there is to say about a job, with a label each."""
    spec = job.spec
    yield "name", printable(spec.name)
    yield "state", standing(job)
    yield "kfl", printable(spec.kfl)
    if job.expanded_kfl:
        yield "records", printable(job.expanded_kfl)
    if spec.imported:
        yield "from", "a capture file"
    else:
        yield "starts", f"{spec.start_time} UTC" if spec.start_time else "when it was created"
        yield "runs", f"{_runs(job)}, {counted(spec.duration_minutes, 'minute')} each"
    if job.next_start_times:
        yield (
            "next starts",
            ", ".join(f"{t.ToDatetime():%Y-%m-%d %H:%MZ}" for t in job.next_start_times),
        )
    if spec.description:
        yield "for", printable(spec.description, LONGEST_REASON)
    if spec.labels:
        pairs = ", ".join(f"{name}={spec.labels[name]}" for name in sorted(spec.labels))
        yield "labels", printable(pairs, LONGEST_REASON)
    if spec.run_missed == jobs_pb2.RUN_MISSED_SKIP:
        yield "late runs", "are skipped"
    if spec.size_limit_bytes:
        yield "size limit", in_binary(spec.size_limit_bytes)
    if spec.on_full == jobs_pb2.ON_FULL_DROP_OLDEST:
        yield "when full", "its oldest data makes room"
    kept = f"{counted(spec.expiration_minutes, 'minute')} after each run"
    yield "kept", f"until it is unpinned; else {kept}" if spec.pinned else kept
    yield "bodies", f"up to {in_binary(spec.body_limit)}"
    yield "created", when(job.create_time)


def standing(job: jobs_pb2.Job) -> str:
    """Return the state, with its reason or what comes next."""
    text = state_word(job.state)
    if job.reason:
        text += f" ({printable(job.reason, LONGEST_REASON)})"
    if job.state == jobs_pb2.JOB_STATE_RECORDING and job.runs:
        text += f" until {when(job.runs[-1].end_time)}"
    elif job.HasField("next_start_time"):
        text += f", next run {when(job.next_start_time)}"
    return text


def line(change: jobs_pb2.WatchJobsResponse) -> str:
    """Return a change as a line with the time of day."""
    now = datetime.now(UTC).strftime("%H:%M:%S")
    job = change.job
    if change.deleted:
        return f"{now}  {printable(job.spec.name):<24} deleted"
    return f"{now}  {printable(job.spec.name):<24} {standing(job)}; {stored(job)}"


def stored(job: jobs_pb2.Job) -> str:
    """Return how much its runs have stored."""
    entries = counted(sum(run.entries for run in job.runs), "entry", "entries")
    streams = counted(sum(run.streams for run in job.runs), "stream")
    return f"{entries} in {streams}, {in_binary(sum(run.bytes for run in job.runs))}"


def when(time: Timestamp) -> str:
    """Return a time in UTC to the second, without its date when it is within a day of now."""
    moment = time.ToDatetime(UTC)
    near = abs(moment - datetime.now(UTC)) < timedelta(hours=12)
    return moment.strftime("%H:%M:%SZ" if near else "%Y-%m-%d %H:%MZ")
