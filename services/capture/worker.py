"""One capture process's parts: a source, an agent with a thread, an uplink. `app` and `workers` run
it.
"""

import re
import threading

from services.capture.agent import Agent, new_engine_factory
from services.capture.frames import CaptureError, FrameSource, open_capture
from services.capture.frames.interfaces import is_one_interface, open_interfaces
from services.capture.identity.names import Names
from services.capture.identity.watcher import Watcher, open_watcher
from services.capture.metrics import snapshot
from services.capture.outbox import Counters
from services.capture.pcapfilter import Filtered, compile_filter
from services.capture.spool import Spool
from services.capture.targets import TargetsFile
from services.capture.uplink import Uplink
from services.capture.uplinks import Uplinks
from services.capture.warmup import warm_up
from services.runtime.errors import UserError
from services.runtime.logging import logger
from services.runtime.metrics import Snapshot
from services.runtime.settings import CaptureSettings

STOP_MARGIN_SECONDS = 2.0
"""Left of the time to drain, after the wait for acknowledgements, to close everything."""

_log = logger(__name__)


class Worker:
    """Captures from its start until it is drained or its source ends."""

    def __init__(
        self,
        settings: CaptureSettings,
        fanout_group: int | None = None,
        names: Names | None = None,
    ) -> None:
        """Open the source and compile the kernels; raises CaptureError, or UserError.

        fanout_group: share the packets with other workers, as AfPacket has it.
        names: that another process watches for; else this one does, if the settings say so.
        """
        # First, so that whoever named something that cannot be opened need not wait for kernels.
        self.source = open_source(settings, fanout_group)
        self._grace_seconds = settings.grace_seconds
        is_replay = settings.replay is not None
        targets = open_targets(settings)
        self._watcher: Watcher | None = None
        if names is None and settings.kube:
            names = Names()
            self._watcher = open_watcher(settings.kube, settings.node)
            self._watcher.add(names.take)
        self.names = names
        new_engine = new_engine_factory(
            settings.node,
            settings.node_ip,
            settings.packet_memory,
            settings.body_limit,
            settings.packet_disk,
            settings.packet_folder,
            networks_apart=is_replay or is_one_interface(settings.interface),
            most_flows=settings.most_flows,
            sample=settings.sample,
            **({} if names is None else {"known": names.known}),
        )
        if not is_replay:
            self.source.close()  # a ring that nobody reads meanwhile would overrun
        warm_up(new_engine())
        if not is_replay:
            self.source = open_source(settings, fanout_group)
        self._name = str(settings.replay or ", ".join(settings.interface))
        self._uplink = _uplink(settings)
        self._agent = Agent(
            self.source,
            new_engine,
            self._uplink,
            settings.node,
            replay=is_replay,
            names=names,
            targets=targets,
        )
        self._stop = threading.Event()
        self.ended = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)

    def start(self) -> None:
        """Begin to capture."""
        if self._watcher is not None:
            self._watcher.start()
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
        if self._watcher is not None:
            self._watcher.stop()
        self.source.close()

    def snapshot(self) -> Snapshot:
        """Return the figures of this moment."""
        return snapshot(self._agent, self.source, self._uplink)

    def _capture(self) -> None:
        try:
            self._agent.run(self._stop)
        except Exception as error:
            self.failure = error
            if not isinstance(error, CaptureError):
                _log.exception("the capture has ended by an error")
        finally:
            self.ended.set()


def open_targets(settings: CaptureSettings) -> TargetsFile | None:
    """Return the file that says whose traffic is captured, if any. Raises UserError."""
    if settings.targets is None:
        return None
    if not settings.kube:
        raise UserError(f"{settings.targets} names pods, which takes --kube to know them.")
    targets = TargetsFile(settings.targets)
    targets.open()
    return targets


def open_source(settings: CaptureSettings, fanout_group: int | None = None) -> FrameSource:
    """Open the file to replay, or else the interfaces. Raises CaptureError."""
    if settings.replay is not None:
        return open_capture(settings.replay)
    program = compile_filter(settings.bpf, settings.snaplen) if settings.bpf else None
    source = open_interfaces(
        settings.interface,
        settings.ring_memory,
        snaplen=settings.snaplen,
        fanout_group=fanout_group,
    )
    return source if program is None else Filtered(source, program)


def _uplink(settings: CaptureSettings) -> Uplink | Uplinks:
    """Return the uplink to the scheduler, or to several. Raises OSError for a spool."""
    addresses = list(dict.fromkeys(settings.scheduler))

    def make(
        address: str, lock: threading.Condition | None = None, counters: Counters | None = None
    ) -> Uplink:
        return Uplink(
            address,
            settings.node,
            settings.node_ip,
            memory_limit=settings.uplink_memory,
            # A file can wait; frames on a wire do not.
            blocking=settings.replay is not None,
            spool=_spool(settings, address if len(addresses) > 1 else ""),
            lock=lock,
            counters=counters,
        )

    if len(addresses) == 1:
        return make(addresses[0])
    return Uplinks(addresses, settings.node, make)


def _spool(settings: CaptureSettings, address: str) -> Spool | None:
    """Return the spool of what is for a scheduler; "" is the only one."""
    if settings.spool is None or settings.replay is not None:
        return None  # a file can be read again
    folder = settings.spool
    if address:
        folder = folder / f"to-{re.sub('[^a-zA-Z0-9.-]', '_', address)}"
    return Spool(folder, settings.spool_limit)
