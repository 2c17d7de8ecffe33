"""The query process: wires catalog, engine and service. Called by the command line."""

from services.query.catalog import Catalog
from services.query.engine import Engine
from services.query.query_rpc import QueryService, add_to
from services.runtime.logging import logger
from services.runtime.process import run_until_signal
from services.runtime.server import Server, serve
from services.runtime.settings import QuerySettings

STOP_SHARE = 0.8
"""Part of the grace that running answers get; the rest is for closing the engine."""


class App:
    """The query service with all that it needs."""

    def __init__(self, settings: QuerySettings) -> None:
        self._settings = settings
        self._engine: Engine | None = None
        self._service: QueryService | None = None
        self.server: Server | None = None
        """Set once it serves."""

    def start(self) -> None:
        """Serve. Raises OSError with a sentence when the address cannot be had."""
        settings = self._settings
        catalog = Catalog(*settings.data)
        self._engine = Engine(
            *catalog.folders, memory_limit_bytes=settings.memory_limit, threads=settings.threads
        )
        self._service = QueryService(
            catalog, self._engine, settings.deadline_seconds, settings.macros
        )
        try:
            self.server = serve(settings.listen, add_to(self._service))
        except OSError:
            self.stop()
            raise
        logger(__name__).info(
            "query service is ready",
            address=self.server.address,
            data=", ".join(map(str, catalog.folders)),
        )

    def stop(self) -> None:
        """End followers, let running answers end within the grace, and close the engine."""
        if self._service is not None:
            self._service.close()
        if self.server is not None:
            self.server.stop(self._settings.grace_seconds * STOP_SHARE)
        if self._engine is not None:
            self._engine.close()


def run(settings: QuerySettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Raises OSError with a sentence when the address cannot be had.
    """
    app = App(settings)
    return run_until_signal(app.start, app.stop, grace_seconds=settings.grace_seconds)
