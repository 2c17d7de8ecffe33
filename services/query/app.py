"""The query process: wires catalog, engine and service. Called by the command line."""

import os
import tempfile
from pathlib import Path

from recordings.archived import ArchiveReader
from recordings.cache import Cache, CacheFolder
from recordings.remote import Remote
from recordings.storage import Storage
from services.query.catalog import Catalog
from services.query.engine import Engine
from services.query.live import Limits, Live
from services.query.query_rpc import QueryService, add_to
from services.runtime.logging import logger
from services.runtime.process import run_until_signal
from services.runtime.server import Server, serve
from services.runtime.settings import QuerySettings

WORKERS = 256
"""Calls at once, of which most wait for a place or follow: fifty dashboards of four panels each."""

NICE = 5
"""How far questions stand back behind ingest and capture where they share a machine."""

STOP_SHARE = 0.8
"""Part of the grace that running answers get; the rest is for closing the engine."""


class App:
    """The query service with all that it needs."""

    def __init__(self, settings: QuerySettings) -> None:
        self._settings = settings
        self._engine: Engine | None = None
        self._service: QueryService | None = None
        self._live: Live | None = None
        self._folder: CacheFolder | None = None
        self.server: Server | None = None
        """Set once it serves."""

    def start(self) -> None:
        """Serve. Raises OSError with a sentence when the address cannot be had."""
        settings = self._settings
        folders = [folder for folder in settings.data if isinstance(folder, Path)]
        archives, cache = [], None
        storage = Storage(settings.storage) if settings.storage else None
        if len(folders) < len(settings.data) or storage is not None:
            cache = self._new_cache()
            urls = [url for url in settings.data if isinstance(url, str)]
            archives = [ArchiveReader(Remote(url), cache) for url in urls]
        catalog = Catalog(*folders, archives=archives, storage=storage, cache=cache)
        self._engine = Engine(
            *catalog.folders,
            memory_limit_bytes=settings.memory_limit,
            threads=settings.threads,
            cache=cache,
        )
        limits = Limits(settings.live_window, settings.live_linger, settings.live_memory)
        self._live = Live(settings.scheduler, limits, settings.macros)
        self._service = QueryService(
            catalog, self._engine, settings.deadline_seconds, settings.macros, self._live
        )
        try:
            self.server = serve(settings.listen, add_to(self._service), WORKERS)
        except OSError:
            self.stop()
            raise
        logger(__name__).info(
            "query service is ready",
            address=self.server.address,
            data=", ".join([*map(str, catalog.folders), *(each.url for each in archives)]),
        )

    def _new_cache(self) -> Cache:
        """Return an empty cache in a folder that goes with this process. Raises OSError."""
        settings = self._settings
        base = settings.cache or Path(tempfile.gettempdir())
        base.mkdir(parents=True, exist_ok=True)
        self._folder = CacheFolder(base)
        return Cache(self._folder.path, settings.cache_limit)

    def stop(self) -> None:
        """End followers, let running answers end within the grace, and close the engine."""
        if self._service is not None:
            self._service.close()
        if self.server is not None:
            self.server.stop(self._settings.grace_seconds * STOP_SHARE)
        if self._live is not None:
            self._live.close()
        if self._engine is not None:
            self._engine.close()
        if self._folder is not None:
            self._folder.close()


def run(settings: QuerySettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Raises OSError with a sentence when the address cannot be had.
    """
    os.nice(NICE)
    app = App(settings)
    return run_until_signal(app.start, app.stop, grace_seconds=settings.grace_seconds)
