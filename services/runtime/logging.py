"""Log lines on stderr: for people on a terminal, as JSON for programs."""

import logging
import sys
from typing import Literal

import structlog

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]


def configure(level: Level = "info", format: Format = "auto") -> None:
    """Send all log lines, structlog's and the standard library's, to stderr from `level` on.

    `auto` is console on a terminal and JSON, one object a line, otherwise.
    """
    to_people = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor]
    if to_people:
        final = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        final = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A debug level is for our own lines; a query engine's or JIT's would drown them.
    for name in ("numba", "sqlalchemy", "alembic", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


def _before_configure() -> None:
    """Hand lines to the standard library: as text, so that only warnings show, and on stderr.

    structlog's own default writes all of them to stdout, where a command's answer belongs.
    """
    structlog.configure(
        processors=[
            structlog.processors.KeyValueRenderer(key_order=["event"], repr_native_str=False)
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


_before_configure()


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger that takes `log.info("what happened", key=value)`."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound
