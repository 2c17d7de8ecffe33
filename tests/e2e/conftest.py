"""The network, and a recorder in it that tests share: each uses recordings and paths of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.network import Network
from tests.e2e.services import START_SECONDS, Recorder

_names = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each of these tests time for kernels that are to be compiled first."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(START_SECONDS + 120))


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two namespaces with nginx and dnsmasq; for tests with the markers root and debian."""
    made = Network(tmp_path_factory.mktemp("network"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def live(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Scheduler, query and an agent on the server's interface."""
    made = Recorder(tmp_path_factory.mktemp("live"), network.server)
    try:
        made.start_scheduler()
        made.start_query()
        made.start_agent(network.interface)
        yield made
    finally:
        made.close()


@pytest.fixture
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recorder]:
    """A recorder of which nothing runs yet; in the network when the test has one."""
    namespace = None
    if "network" in request.fixturenames:
        namespace = request.getfixturevalue("network").server
    made = Recorder(tmp_path, namespace)
    yield made
    made.close()


@pytest.fixture
def new_name() -> Callable[[], str]:
    """Return what gives names that no other test has."""
    return lambda: f"t{next(_names)}"
