"""How a process runs until it is told to end, and ends in order."""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import structlog

GRACE_SECONDS = 25.0
"""Time to drain: a little less than the 30 s that Kubernetes gives a pod by default."""

LOOK_SECONDS = 0.2
"""How often the main thread looks whether the work has ended by itself."""

PR_SET_PDEATHSIG = 1  # linux/prctl.h

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_with(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent, of this pid, dies.

    Does nothing where there is no prctl.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGTERM)


def run_until_signal(
    start: Callable[[], object],
    drain: Callable[[], object],
    *,
    grace_seconds: float = GRACE_SECONDS,
    ended: threading.Event | None = None,
) -> int:
    """Call `start`, wait for SIGTERM or SIGINT (or `ended`), call `drain` once; return exit code.

    0 when it drained within the grace, 1 when it did not. A second signal ends the process at once
    with 128 + its number. Only for the main thread; what `start` or `drain` raise is raised here.
    """
    log = structlog.stdlib.get_logger(__name__)
    # A pipe and not an Event: a handler that runs while this thread is inside Event.wait would lock
    # against itself.
    reader, writer = os.pipe()
    received: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        os.write(writer, b"!")

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        start()
        _notify("READY=1")
        while not select.select([reader], [], [], LOOK_SECONDS)[0]:
            if ended is not None and ended.is_set():
                break
        name = signal.Signals(received[0]).name if received else "end of work"
        _notify("STOPPING=1")
        log.info("draining", reason=name, grace_seconds=grace_seconds)
        return _drain_within(drain, grace_seconds)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _notify(state: str) -> None:
    """Tell who started this process how it stands, where it asked: systemd, or `recorder up`.

    https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        # A leading @ is the abstract namespace. Who does not listen any more need not know.
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(state.encode())


def _drain_within(drain: Callable[[], object], grace_seconds: float) -> int:
    """Drain on a thread of its own, so that this one hears a second signal and counts the time."""
    failure: list[BaseException] = []

    def work() -> None:
        try:
            drain()
        except BaseException as error:  # handed on to the main thread
            failure.append(error)

    thread = threading.Thread(target=work, name="drain", daemon=True)
    thread.start()
    thread.join(grace_seconds)
    if failure:
        raise failure[0]
    if thread.is_alive():
        log = structlog.stdlib.get_logger(__name__)
        log.error("did not drain in time; what was not stored is lost", grace_seconds=grace_seconds)
        return 1
    return 0
