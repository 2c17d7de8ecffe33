import socket

import pytest


@pytest.fixture
def closed_port():
    """A port of loopback that nobody listens on and nobody else gets."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
