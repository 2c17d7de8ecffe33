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
from pathlib import Path

import psycopg

USER = "nobody"
"""Who runs it when the tests are root's: PostgreSQL refuses to be."""

_numbers = itertools.count(1)


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
            self._as = ["setpriv", *ids, "--clear-groups"]
        self._run("initdb", "-D", self._folder / "data", "-U", "recorder", "-A", "trust", "-N")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= "
        options += "-c fsync=off -c max_connections=200"
        log = self._folder / "log"
        self._run("pg_ctl", "-D", self._folder / "data", "-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        """End it without waiting for those who are connected; the data stays."""
        self._run("pg_ctl", "-D", self._folder / "data", "-w", "-m", "fast", "stop")

    def signal(self, number: signal.Signals) -> None:
        """Send the server a signal."""
        first = (self._folder / "data" / "postmaster.pid").read_text().splitlines()[0]
        os.kill(int(first), number)

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

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [*self._as, str(self._programs / program), *map(str, arguments)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
