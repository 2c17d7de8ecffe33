"""Jobs as messages of jobs.proto; jobs_rpc.py answers with them."""

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import jobs_pb2

from recordings.ledger import NodeCounts
from services.scheduler import timetable
from services.scheduler.jobs import Job, Run, RunAgent, Spec
from services.scheduler.jobstore import Event


def job_message(job: Job, now: datetime) -> jobs_pb2.Job:
    """Return a job as it stands, with its next starts after `now`."""
    starts = [timestamp(start) for start in timetable.next_starts(job, now)]
    message = jobs_pb2.Job(
        spec=_spec_message(job.spec),
        state=jobs_pb2.JobState.ValueType(job.state),
        reason=job.reason,
        create_time=timestamp(job.create_time),
        expanded_kfl=job.spec.expanded_kfl,
        runs=[_run_message(job, run) for run in job.runs],
        next_start_times=starts,
    )
    if starts:
        message.next_start_time.CopyFrom(starts[0])
    return message


def add_agents(message: jobs_pb2.Run, agents: Sequence[RunAgent]) -> None:
    """Put the agents that took part into a run."""
    for agent in agents:
        added = message.agents.add(
            agent_id=agent.agent_id,
            node=agent.node,
            state=jobs_pb2.AgentState.ValueType(agent.state),
            join_time=timestamp(agent.join_time),
            heard_time=timestamp(agent.heard_time),
            batches=agent.batches,
            bytes=agent.bytes,
        )
        if agent.data_time is not None:
            added.data_time.CopyFrom(timestamp(agent.data_time))
        if agent.finish_time is not None:
            added.finish_time.CopyFrom(timestamp(agent.finish_time))


def add_counts(message: jobs_pb2.Run, name: str, counts: Sequence[NodeCounts]) -> None:
    """Put what nodes have seen into a run."""
    for node in counts:
        added = message.counts.add(
            recording=name,
            run=message.number,
            node=node.node,
            seen_packets=_most(node.seen.packets),
            seen_bytes=_most(node.seen.bytes),
            matched_packets=_most(node.matched.packets),
            matched_bytes=_most(node.matched.bytes),
            stored_packets=_most(node.stored.packets),
            stored_bytes=_most(node.stored.bytes),
        )
        if node.end_ns:
            added.start_time.FromNanoseconds(node.begin_ns)
            added.end_time.FromNanoseconds(node.end_ns)
        for kind, lost in node.lost.items():
            added.lost.add(
                kind=kind,
                times=lost.times,
                packets=_most(lost.packets),
                bytes=_most(lost.bytes),
            )


def _most(number: int) -> int:
    """Return what a message can hold: agents may claim anything."""
    return min(number, 2**64 - 1)


def change_message(event: Event) -> jobs_pb2.JobChange:
    """Return one row of a job's history."""
    return jobs_pb2.JobChange(
        revision=event.revision,
        time=timestamp(event.time),
        job=event.job,
        run=event.run or 0,
        from_state=jobs_pb2.JobState.ValueType(event.from_state or 0),
        to_state=jobs_pb2.JobState.ValueType(event.to_state or 0),
        reason=event.reason,
    )


def timestamp(time: datetime) -> Timestamp:
    """Return a time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _spec_message(spec: Spec) -> jobs_pb2.JobSpec:
    return jobs_pb2.JobSpec(
        name=spec.name,
        kfl=spec.kfl,
        start_time=spec.start_time,
        daily_iterations=spec.daily_iterations,
        duration_minutes=spec.duration_minutes,
        expiration_minutes=spec.expiration_minutes,
        body_limit=spec.body_limit,
        imported=spec.imported,
        run_missed=jobs_pb2.RunMissed.ValueType(spec.run_missed),
        pinned=spec.pinned,
        labels=spec.labels,
        description=spec.description,
        size_limit_bytes=spec.size_limit,
        on_full=jobs_pb2.OnFull.ValueType(spec.on_full),
    )


def _run_message(job: Job, run: Run) -> jobs_pb2.Run:
    message = jobs_pb2.Run(
        number=run.number,
        state=jobs_pb2.JobState.ValueType(run.state),
        reason=run.reason,
        start_time=timestamp(run.start_time),
        end_time=timestamp(run.end_time),
        entries=run.entries,
        streams=run.streams,
        packets=run.packets,
        bytes=run.bytes,
        lost_packets=run.lost_packets,
        nodes=run.nodes,
        pinned=run.pinned,
        completeness=run.completeness,
    )
    if not run.is_recording and not job.keeps(run):
        message.expire_time.CopyFrom(timestamp(run.end_time + job.spec.expiration))
    return message
