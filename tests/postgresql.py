"""A PostgreSQL of the tests' own, on loopback, in a folder that goes with it.

Never the system's: it has its own data, its own port, and belongs to a user without rights.
"""

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

USER = "nobody"
"""Who runs it when the tests are root's: PostgreSQL refuses to be."""

START_SECONDS = 60.0

_numbers = itertools.count(1)

_ALONE: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "cwd": "/",
    "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
}


def programs() -> Path | None:
    """Return the folder of initdb and postgres, the newest that Debian has installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    return found[-1].parent if found else None


class PostgreSql:
    """A running server."""

    def __init__(self) -> None:
        found = programs()
        assert found is not None
        self._programs = found
        self._folder = Path(tempfile.mkdtemp(prefix="recorder-postgresql-", dir="/tmp"))
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
            self._as = [*ids, "--clear-groups"]
        options = ["-D", str(self._folder / "data"), "-U", "recorder", "-A", "trust", "-N"]
        begin = ["setpriv", *self._as, str(self._programs / "initdb")]
        subprocess.run([*begin, *options], check=True, **_ALONE)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        options = ("listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=")
        options += ("fsync=off", "max_connections=200")
        settings = [word for option in options for word in ("-c", option)]
        data = ["-D", str(self._folder / "data")]
        # It ends with the tests, also when those are killed.
        begin = ["setpriv", *self._as, "--pdeathsig=INT", str(self._programs / "postgres")]
        self._server = subprocess.Popen([*begin, *data, *settings], **_ALONE)
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                assert self._server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it without waiting for those who are connected; the data stays."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(START_SECONDS)

    def close(self) -> None:
        """End it for good."""
        self.stop()
        shutil.rmtree(self._folder)

    def database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"recorder_{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://recorder@127.0.0.1:{self.port}/{name}"
