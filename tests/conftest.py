"""What all tests share: which of them can run on this machine, and where real captures are.

A marker of pyproject.toml says what a test needs; a test whose need is not met is skipped, with a
reason that says what is missing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.postgresql import PostgreSql

ROOT = Path(__file__).parents[1]

CAPTURES = Path(os.environ.get("RECORDER_CAPTURES", ROOT.parent / "shared" / "captures"))
"""The folder of real captures: not in the repository, for its size and licences."""

# A script that starts the tests in the background has SIGINT ignored, and so would all that they
# start; some are ended with it, as by Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A shared machine is slow at times, which is no failure of the code. CI takes the same examples
# each time, so that what it says is about the change; by hand they are new ones at each run.
hypothesis.settings.register_profile("default", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("default")


def _root() -> str:
    if os.geteuid() != 0:
        return "needs root"
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "needs CAP_SYS_ADMIN, for network namespaces"


def _docker() -> str:
    reason = "needs a Docker engine"
    if shutil.which("docker") is None:
        return reason
    probe = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60)
    return "" if probe.returncode == 0 else reason


def _tshark() -> str:
    return "" if shutil.which("tshark") else "needs tshark"


def _strace() -> str:
    return "" if shutil.which("strace") else "needs strace"


def _captures() -> str:
    return "" if CAPTURES.is_dir() else f"needs real captures in {CAPTURES} or RECORDER_CAPTURES"


def _helm() -> str:
    return "" if importlib.util.find_spec("helm_python") else "needs helm-python-sdk"


def _debian() -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    servers = ("nginx", "dnsmasq", "curl", "dig")
    missing = [name for name in servers if shutil.which(name, path=path) is None]
    return f"needs {' and '.join(missing)}" if missing else ""


def _postgresql() -> str:
    if any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return ""
    return "needs PostgreSQL, as in Debian's package postgresql"


NEEDS: dict[str, Callable[[], str]] = {
    "root": functools.cache(_root),
    "docker": functools.cache(_docker),
    "tshark": functools.cache(_tshark),
    "strace": functools.cache(_strace),
    "captures": functools.cache(_captures),
    "helm": functools.cache(_helm),
    "debian": functools.cache(_debian),
    "postgresql": functools.cache(_postgresql),
}
"""For each marker a function that says what is missing; "" when nothing is."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, missing in NEEDS.items():
        if item.get_closest_marker(name) is not None and (reason := missing()):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder of real captures; for tests with the marker of that name."""
    if reason := NEEDS["captures"]():
        pytest.skip(reason)
    return CAPTURES


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL of the tests' own; for tests with the marker of that name."""
    if reason := NEEDS["postgresql"]():
        pytest.skip(reason)
    from tests.postgresql import PostgreSql

    server = PostgreSql()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database for jobs, of each kind that there is; "" is SQLite."""
    if request.param == "sqlite":
        return ""
    return str(request.getfixturevalue("postgresql").database())
