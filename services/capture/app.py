"""The process of a capture agent: `recorder capture` runs it."""

import threading

from services.capture.agent import Agent, new_engine_factory
from services.capture.frames import CaptureError, FrameSource, open_capture
from services.capture.frames.afpacket import open_interfaces
from services.capture.uplink import Uplink
from services.capture.warmup import warm_up
from services.runtime.errors import UserError
from services.runtime.logging import logger
from services.runtime.process import run_until_signal
from services.runtime.server import Server, serve
from services.runtime.settings import CaptureSettings

STOP_MARGIN_SECONDS = 2.0
"""Left of the time to drain, after the wait for acknowledgements, to close everything."""

HEALTH_WORKERS = 2
"""An agent answers nothing but health checks."""

_log = logger(__name__)


class Capture:
    """The parts of an agent, and the thread that captures."""

    def __init__(self, settings: CaptureSettings) -> None:
        """Open the source and compile the kernels; raises CaptureError."""
        # First, so that whoever named something that cannot be opened need not wait for kernels.
        self._source = open_source(settings)
        self._grace_seconds = settings.grace_seconds
        self._listen = settings.listen
        self._server: Server | None = None
        new_engine = new_engine_factory(
            settings.node, settings.node_ip, settings.packet_memory, settings.body_limit
        )
        is_replay = settings.replay is not None
        if not is_replay:
            self._source.close()  # a ring that nobody reads meanwhile would overrun
        warm_up(new_engine())
        if not is_replay:
            self._source = open_source(settings)
        self._name = str(settings.replay or ", ".join(settings.interface))
        self._uplink = Uplink(
            settings.scheduler,
            settings.node,
            settings.node_ip,
            memory_limit=settings.uplink_memory,
            # A file can wait; frames on a wire do not.
            blocking=is_replay,
        )
        self._agent = Agent(
            self._source,
            new_engine,
            self._uplink,
            settings.node,
            replay=is_replay,
        )
        self._stop = threading.Event()
        self.ended = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)

    def start(self) -> None:
        """Begin to capture. Raises OSError with a sentence when the address cannot be had."""
        if self._listen is not None:
            self._server = serve(self._listen, lambda _: [], workers=HEALTH_WORKERS)
        self._uplink.start()
        self._thread.start()
        _log.info("capture agent runs", source=self._name)

    def drain(self) -> None:
        """End the capture, and wait until the scheduler has everything."""
        self._stop.set()
        self._thread.join()
        if not self._uplink.flush(max(0.0, self._grace_seconds - STOP_MARGIN_SECONDS)):
            _log.error("the scheduler has not acknowledged everything", reason=self._uplink.failure)
        self._uplink.stop()
        self._source.close()
        if self._server is not None:
            self._server.stop(0)

    def _capture(self) -> None:
        try:
            self._agent.run(self._stop)
        except Exception as error:
            self.failure = error
            if not isinstance(error, CaptureError):
                _log.exception("the capture has ended by an error")
        finally:
            self.ended.set()


def run(settings: CaptureSettings) -> int:
    """Capture until SIGTERM or SIGINT, or the end of the file to replay; return the exit code.

    Raises UserError when the source cannot be opened or read.
    """
    try:
        capture = Capture(settings)
    except CaptureError as error:
        raise UserError(_sentence(error)) from None
    code = run_until_signal(
        capture.start, capture.drain, grace_seconds=settings.grace_seconds, ended=capture.ended
    )
    if isinstance(capture.failure, CaptureError):
        raise UserError(_sentence(capture.failure))
    return 1 if capture.failure is not None else code


def open_source(settings: CaptureSettings) -> FrameSource:
    """Open the file to replay, or else the interfaces. Raises CaptureError."""
    if settings.replay is not None:
        return open_capture(settings.replay)
    return open_interfaces(settings.interface, settings.ring_memory)


def _sentence(error: CaptureError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
