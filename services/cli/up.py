"""`recorder up`: scheduler, query and capture on this machine, as three processes on loopback."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from services.cli.clients import QUERY, SCHEDULER, check_address
from services.cli.processes import (
    Process,
    Processes,
    capture_obstacle,
    free_address,
    wait_until_ready,
    wait_until_serving,
)
from services.cli.sample import Sample, percent
from services.cli.statement import Macros, read_macros
from services.cli.terminal import (
    FAILED,
    FINE,
    INTERRUPTED,
    CommandError,
    console,
    new_app,
    say,
)
from services.runtime.macros import written

app = new_app()

LOOK_SECONDS = 0.3
"""How often it is looked whether all still run."""


class Stopped(BaseException):
    """SIGINT or SIGTERM came; not an Exception, so that no retry swallows it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run where."""

    data: Path
    scheduler: str
    query: str
    interfaces: tuple[str, ...]
    capture: bool = True
    macros: str = ""  # as `--macros` takes them
    sample: tuple[str, ...] = ()  # the flag, if it was given
    http: str = ""  # where the gateway listens; none if empty


@app.command()
def up(
    data: Annotated[
        Path,
        typer.Option(
            envvar="RECORDER_DATA", metavar="FOLDER", help="Folder of jobs, recordings and logs."
        ),
    ] = Path(".data"),
    scheduler: Annotated[
        str | None,
        typer.Option(
            envvar="RECORDER_SCHEDULER",
            metavar="HOST:PORT",
            help=f"Address of the scheduler; {SCHEDULER} or a free port if not given.",
        ),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            "--query-address",
            envvar="RECORDER_QUERY",
            metavar="HOST:PORT",
            help=f"Address of the query service; {QUERY} or a free port if not given.",
        ),
    ] = None,
    interface: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Interface to capture on, or any; may be repeated."),
    ] = None,
    no_capture: Annotated[
        bool, typer.Option("--no-capture", help="Only scheduler and query, as for imports.")
    ] = False,
    http_listen: Annotated[
        str | None,
        typer.Option(
            "--http-listen",
            metavar="HOST:PORT",
            help="Address of a gateway, which serves the same over HTTP; none if not given.",
        ),
    ] = None,
    macros: Macros = "",
    sample: Sample = "",
    demo: Annotated[
        bool, typer.Option("--demo", help="Make and record some HTTP and DNS traffic on loopback.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="With --demo: end after its table; 0 if it captured it.")
    ] = False,
) -> None:
    """Start scheduler, query and capture on this machine, and serve until Ctrl-C."""
    if once and not demo:
        raise typer.BadParameter("--once goes with --demo.")
    if demo and no_capture:
        raise typer.BadParameter("--demo captures; leave out --no-capture.")
    plan = Plan(
        data,
        _address(scheduler, SCHEDULER, "--scheduler"),
        _address(query, QUERY, "--query-address"),
        tuple(interface or (["lo"] if demo else ["any"])),
        not no_capture,
        written(read_macros(macros)) if macros else "",
        ("--sample", str(percent(sample))) if sample else (),
        _address(http_listen, "", "--http-listen") if http_listen else "",
    )
    processes = Processes()
    code = FAILED
    with _signals_stop():
        try:
            code = _demo(plan, processes, once) if demo else _serve(plan, processes)
        except Stopped:
            code = INTERRUPTED
        except CommandError as error:
            say(str(error))
            code = error.exit_code
        finally:
            processes.end(say)
    raise typer.Exit(code)


def _address(given: str | None, default: str, flag: str) -> str:
    """Return where a service is to listen. Raises CommandError when someone else does there.

    It is looked at before, since their service would answer in the place of ours.
    """
    if not given:
        return free_address(default)
    check_address(given, flag)
    if free_address(given) != given:
        raise CommandError(f"{flag}: {given} cannot be had: another process may have that port.")
    return given


def _serve(plan: Plan, processes: Processes) -> int:
    obstacle = capture_obstacle() if plan.capture else ""
    if obstacle:
        raise CommandError(f"{obstacle} Without capture: recorder up --no-capture", FAILED)
    start_services(plan, processes)
    if plan.capture:
        start_capture(plan, processes)
    say(f"\nTry: {recorder_command()} jobs create errors --kfl 'response.status == 500'")
    return serve_until_stopped(processes)


def _demo(plan: Plan, processes: Processes, once: bool) -> int:
    from services.cli.demonstration import demonstrate

    return demonstrate(plan, processes, once)


def serve_until_stopped(processes: Processes) -> int:
    """Watch until Ctrl-C or SIGTERM. Raises Died when a service ends."""
    say("Serving; Ctrl-C ends it.")
    try:
        while True:
            processes.check()
            time.sleep(LOOK_SECONDS)
    except Stopped:
        return FINE


def start_services(plan: Plan, processes: Processes) -> None:
    """Start scheduler, query and perhaps the gateway, and wait until they serve."""
    services = (("scheduler", plan.scheduler), ("query", plan.query))
    data = ["--data", str(plan.data), *(("--macros", plan.macros) if plan.macros else ())]
    for name, address in services:
        whose = ("--scheduler", plan.scheduler) if name == "query" else ()
        process = Process(name, ("--listen", address, *data, *whose), _log(plan, name))
        with step(f"Starting {name}"):
            processes.start(process)
            wait_until_serving(process, address, processes)
        _say_where(process, address)
    if plan.http:
        _start_gateway(plan, processes)


def _start_gateway(plan: Plan, processes: Processes) -> None:
    where = ("--listen", plan.http, "--scheduler", plan.scheduler, "--query", plan.query)
    process = Process("gateway", where, _log(plan, "gateway"))
    with step("Starting gateway"):
        processes.start(process)
        wait_until_ready(process, processes)
    _say_where(process, f"http://{plan.http}")


def start_capture(plan: Plan, processes: Processes, replay: Path | None = None) -> None:
    """Start capture, on the wire or on a file."""
    source = (
        [argument for name in plan.interfaces for argument in ("--interface", name)]
        if replay is None
        else ["--replay", str(replay)]
    )
    process = Process(
        "capture",
        ("--scheduler", plan.scheduler, *plan.sample, *source),
        _log(plan, "capture"),
        may_end=replay is not None,
    )
    with step("Starting capture (the first time, its kernels compile for minutes)"):
        processes.start(process)
        wait_until_ready(process, processes)
    _say_where(process, f"on {', '.join(plan.interfaces)}" if replay is None else f"from {replay}")


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show that something takes its time: it moves on a terminal, and is a line elsewhere."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        say(f"{what} …")
        yield
        return
    with shown.status(f"{what} …"):
        yield


def recorder_command() -> str:
    """Return how a person calls this command from where they are."""
    if shutil.which("recorder"):
        return "recorder"
    beside = Path(sys.executable).with_name("recorder")
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)


def _say_where(process: Process, where: str) -> None:
    say(f"  {process.name:<10} {where:<22} pid {process.pid:<8} log {process.log}")


def _log(plan: Plan, name: str) -> Path:
    return plan.data / "logs" / f"{name}.log"


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise Stopped."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    except Stopped:  # a second one, while the services were being ended
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
