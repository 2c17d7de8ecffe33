"""`recorder up --demo`: a first recording, from the wire to a table. What `make run` shows."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import grpc
from recorder.v1 import jobs_pb2, query_pb2

from services.cli import demo, summary
from services.cli.clients import CALL_SECONDS, QUERY, SCHEDULER, query, scheduler
from services.cli.processes import Processes, capture_obstacle
from services.cli.terminal import FAILED, FINE, CommandError, print_table, say
from services.cli.up import (
    LOOK_SECONDS,
    Plan,
    recorder_command,
    serve_until_stopped,
    start_capture,
    start_services,
    step,
)

NAME = "demo"
KFL = "http or dns"
QUESTION = f'record("{NAME}") and http'
MINUTES = 60

WAIT_SECONDS = 180.0
"""Longest wait for the first rows: on a new machine the kernels are compiled first."""

ROUND_SECONDS = 3.0
"""Between two rounds of traffic, while nothing has come back: the agent may not have begun."""

SHOWN_ROWS = 16
"""Rows of the table: two rounds."""

HEADERS = ("STATUS", "METHOD", "PATH", "FROM", "TO", "ELAPSED")


@dataclass(frozen=True, slots=True)
class Found:
    """What came back."""

    entries: list[dict[str, object]]
    reason: str
    """Why there is nothing, when there is nothing."""


def demonstrate(plan: Plan, processes: Processes, once: bool) -> int:
    """Record traffic of this machine, show it, and serve; return the exit code."""
    obstacle = capture_obstacle()
    if obstacle:
        say(f"{obstacle}\nInstead, a capture file goes the same way.")
    start_services(plan, processes)
    with demo.serving() as ports:
        if obstacle:
            file = plan.data / "demo.pcap"
            count = demo.write_capture(file, demo.Ports(ports.http, demo.DNS_PORT))
            say(f"Wrote the demo's conversations to {file}: {count} frames.")
            start_capture(plan, processes, file)
        else:
            start_capture(plan, processes)
        # Last, since what an agent misses of a recording that is on is told as a loss.
        _make_recording(plan.scheduler)
        found = _wait_for_rows(plan, processes, ports, make_traffic=not obstacle)
    if not found.entries:
        raise CommandError(
            f"Nothing came back within {WAIT_SECONDS:.0f} s. {found.reason}\n"
            f"The logs are in {plan.data / 'logs'}.",
            FAILED,
        )
    print_table(HEADERS, [summary.row(entry)[2:] for entry in found.entries], title=QUESTION)
    if once:
        return _verdict(bool(obstacle))
    _say_what_next(plan)
    return serve_until_stopped(processes)


def _verdict(was_replayed: bool) -> int:
    if was_replayed:
        say("These rows come from a capture file, not from the wire: nothing was captured here.")
        return FAILED
    return FINE


def _make_recording(address: str) -> None:
    """Create the recording; one of that name from before is deleted first."""
    spec = jobs_pb2.JobSpec(name=NAME, kfl=KFL, duration_minutes=MINUTES)
    with scheduler(address) as stub:
        try:
            stub.DeleteJob(jobs_pb2.DeleteJobRequest(name=NAME), timeout=CALL_SECONDS)
            say(f"Deleted the recording {NAME} from before.")
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=CALL_SECONDS)
    say(f"Created the recording {NAME}: {KFL}, for {MINUTES} minutes.")


def _wait_for_rows(
    plan: Plan, processes: Processes, ports: demo.Ports, *, make_traffic: bool
) -> Found:
    """Make traffic until all of a round can be queried; return the newest rows, oldest first."""
    question = f"{QUESTION} and dst.port == {ports.http}"
    deadline = time.monotonic() + WAIT_SECONDS
    next_round = 0.0
    found = Found([], "")
    what = "Making HTTP and DNS traffic" if make_traffic else "Replaying"
    with step(f"{what}, until it can be queried"):
        while time.monotonic() < deadline:
            processes.check()
            if make_traffic and time.monotonic() >= next_round:
                demo.make_traffic(ports)
                next_round = time.monotonic() + ROUND_SECONDS
            found = _ask(plan.query, question)
            if len(found.entries) >= len(demo.EXCHANGES):
                break
            time.sleep(LOOK_SECONDS)
    return found


def _ask(address: str, question: str) -> Found:
    """Ask once; a recording that is not there yet has no rows."""
    request = query_pb2.QueryRequest(
        kfl=question,
        limit=SHOWN_ROWS,
        descending=True,
        format=query_pb2.ENTRY_FORMAT_JSON,
    )
    try:
        with query(address) as stub:
            answers = list(stub.Query(request, timeout=CALL_SECONDS))
    except CommandError as error:
        return Found([], f"The query service says: {error}")
    entries = [json.loads(answer.json) for answer in answers if answer.json]
    return Found(entries[::-1], f"The query service found no row for {question}.")


def _say_what_next(plan: Plan) -> None:
    command = recorder_command()
    ask = f"{command} ask" + _flag("--query-address", plan.query, QUERY)
    jobs = f"{command} jobs create" + _flag("--scheduler", plan.scheduler, SCHEDULER)
    export = f"{command} export" + _flag("--query-address", plan.query, QUERY)
    body = json.dumps({"kfl": f'record("{NAME}") and dns', "limit": 2})
    method = "recorder.v1.QueryService/Query"
    say(
        "Try, in another terminal:\n"
        f"  {ask} 'record(\"{NAME}\") and response.status >= 500'\n"
        f"  {ask} 'record(\"{NAME}\") and dns'\n"
        f"  {jobs} errors --kfl 'response.status == 500' --duration 60\n"
        f"  {export} 'record(\"{NAME}\") and response.status == 404' -o missing.pcapng\n"
        f"  grpcurl -plaintext -d '{body}' {plan.query} {method}\n"
        f"  buf curl --protocol grpc --http2-prior-knowledge -d '{body}' "
        f"http://{plan.query}/{method}\n"
    )


def _flag(flag: str, address: str, default: str) -> str:
    return "" if address == default else f" {flag} {address}"
