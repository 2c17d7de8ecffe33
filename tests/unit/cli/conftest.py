import logging
import socket

import pytest
import structlog


@pytest.fixture
def closed_port():
    """A port of loopback that nobody listens on and nobody else gets."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def addresses():
    """Two free addresses of loopback, as flags of `recorder up`."""
    found = []
    for flag in ("--scheduler", "--query-address"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found += [flag, f"127.0.0.1:{probe.getsockname()[1]}"]
    return found


@pytest.fixture(autouse=True)
def _logging_as_before():
    """A command that runs in this process sets up logging for all of it."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)
