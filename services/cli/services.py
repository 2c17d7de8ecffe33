"""`recorder scheduler`, `query`, `gateway` and `capture`: one process each.

Each loads its settings, sets up logging, and hands over to the service's `app.run(settings)`.
"""

import importlib
import sys
from typing import Any

import typer

from services.cli.processes import end_with_parent
from services.cli.terminal import FAILED, CommandError, new_app
from services.runtime.logging import configure
from services.runtime.settings import (
    CaptureSettings,
    GatewaySettings,
    QuerySettings,
    SchedulerSettings,
    ServiceSettings,
    options,
)


def _service(module: str, model: type[ServiceSettings], help_text: str) -> typer.Typer:
    def run(settings: ServiceSettings) -> int:
        end_with_parent()
        configure(settings.log_level, settings.log_format)
        service: Any = importlib.import_module(module)
        try:
            return int(service.run(settings) or 0)
        except OSError as error:
            raise CommandError(_sentence(error), FAILED) from error
        except Exception as error:
            if not _is_capture_error(error):
                raise
            raise CommandError(str(error), FAILED) from error

    found = new_app()
    found.command(help=help_text)(options(model, run))
    return found


def _is_capture_error(error: Exception) -> bool:
    """Tell whether a source of frames says, in a sentence, why it cannot be read."""
    # Only a capture process has this loaded; the others need not.
    batch: Any = sys.modules.get("services.capture.frames.batch")
    return batch is not None and isinstance(error, batch.CaptureError)


def _sentence(error: OSError) -> str:
    if error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}."
    return str(error)


scheduler = _service(
    "services.scheduler.app",
    SchedulerSettings,
    "Run the scheduler: it owns the jobs, takes data from capture agents and stores it.",
)
query = _service(
    "services.query.app",
    QuerySettings,
    "Run the query service: it answers KFL statements over what the scheduler has stored.",
)
gateway = _service(
    "services.gateway.app",
    GatewaySettings,
    "Run the gateway: HTTP for what scheduler and query service say over gRPC.",
)
capture = _service(
    "services.capture.app",
    CaptureSettings,
    "Run a capture agent: it watches the wire of this node and sends what jobs ask for. "
    "Needs CAP_NET_RAW, except with --replay.",
)
