"""The process of a capture agent: `recorder capture` runs it."""

import threading
from collections.abc import Mapping

from services.capture.frames import CaptureError
from services.capture.metrics import figures
from services.capture.worker import Worker
from services.capture.workers import Workers
from services.runtime.errors import UserError
from services.runtime.metrics import MetricsServer, Snapshot
from services.runtime.process import run_until_signal
from services.runtime.server import Server, serve
from services.runtime.settings import CaptureSettings

HEALTH_WORKERS = 2
"""An agent answers nothing but health checks."""


class _Servers:
    """What others ask an agent: whether it lives, and its figures."""

    def __init__(self, settings: CaptureSettings, capture: Worker | Workers) -> None:
        self._settings = settings
        self._capture = capture
        self._health: Server | None = None
        self._metrics: MetricsServer | None = None

    def start(self) -> None:
        """Listen where the settings say. Raises OSError with a sentence."""
        if self._settings.metrics is not None:
            self._metrics = MetricsServer(self._settings.metrics, figures(self._snapshots))
        if self._settings.listen is not None:
            self._health = serve(self._settings.listen, lambda _: [], workers=HEALTH_WORKERS)

    def stop(self) -> None:
        if self._health is not None:
            self._health.stop(0)
        if self._metrics is not None:
            self._metrics.stop()

    def _snapshots(self) -> Mapping[str, Snapshot]:
        if isinstance(self._capture, Workers):
            return self._capture.snapshots()
        return {"0": self._capture.snapshot()}


def run(settings: CaptureSettings) -> int:
    """Capture until SIGTERM or SIGINT, or the end of the file to replay; return the exit code.

    Raises UserError when the source cannot be opened or read.
    """
    capture: Worker | Workers
    try:
        capture = Workers(settings) if settings.workers > 1 else Worker(settings)
    except CaptureError as error:
        raise UserError(_sentence(error)) from None
    servers = _Servers(settings, capture)

    def start() -> None:
        servers.start()
        capture.start()

    def drain() -> None:
        capture.drain()
        servers.stop()

    ended = capture.ended if isinstance(capture, Worker) else threading.Event()
    code = run_until_signal(start, drain, grace_seconds=settings.grace_seconds, ended=ended)
    failure = capture.failure if isinstance(capture, Worker) else None
    if isinstance(failure, CaptureError):
        raise UserError(_sentence(failure))
    return 1 if failure is not None else code


def _sentence(error: CaptureError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
