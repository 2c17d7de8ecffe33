"""An S3 of the tests' own on loopback: moto's server, and a proxy before it that can fail."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.fs as pafs

START_SECONDS = 60.0
KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_numbers = itertools.count(1)


class S3:
    """A running server."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it; it is empty."""
        program = str(Path(sys.executable).with_name("moto_server"))
        # It ends with the tests, also when those are killed.
        command = ["setpriv", "--pdeathsig=KILL", program, "-H", "127.0.0.1", "-p", str(self.port)]
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **KEYS},
        )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                assert self._server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return

    def close(self) -> None:
        """End it."""
        self._server.kill()
        self._server.wait()


class Bucket:
    """One bucket; what the program is told goes through the proxy, what tests do does not."""

    def __init__(self, server: S3) -> None:
        self.name = f"bucket-{next(_numbers)}"
        where = f"http://127.0.0.1:{server.port}/{self.name}"
        urlopen(Request(where, method="PUT")).close()
        self.proxy = Proxy(server.port)
        self._files = pafs.S3FileSystem(
            scheme="http", endpoint_override=f"127.0.0.1:{server.port}", region="us-east-1"
        )

    def url(self, prefix: str = "recorder") -> str:
        """Return what a setting says."""
        return (
            f"s3://{self.name}/{prefix}"
            f"?scheme=http&endpoint_override=127.0.0.1:{self.proxy.port}&region=us-east-1"
        )

    def files(self, below: str = "recorder") -> dict[str, int]:
        """Return the sizes of all files, by their key below that."""
        selector = pafs.FileSelector(f"{self.name}/{below}", recursive=True, allow_not_found=True)
        found = self._files.get_file_info(selector)
        prefix = f"{self.name}/{below}/"
        return {f.path.removeprefix(prefix): f.size for f in found if f.is_file}

    def read(self, key: str, below: str = "recorder") -> bytes:
        with self._files.open_input_stream(f"{self.name}/{below}/{key}") as stream:
            octets: bytes = stream.read()
            return octets

    def write(self, key: str, octets: bytes, below: str = "recorder") -> None:
        with self._files.open_output_stream(f"{self.name}/{below}/{key}") as stream:
            stream.write(octets)

    def delete(self, key: str, below: str = "recorder") -> None:
        self._files.delete_file(f"{self.name}/{below}/{key}")

    def close(self) -> None:
        self.proxy.close()


class Proxy:
    """Hands octets on in both directions, until it is told not to."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._left: int | None = None
        self.sent = self.answered = 0
        """Octets towards the server, and from it."""
        self.is_cut = False
        """Each new connection is closed at once."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, after: int = 0) -> None:
        """Break all connections, once so many more octets have been sent to the server."""
        with self._lock:
            self._left = after
        if not after:
            self._break()

    def mend(self) -> None:
        """Hand octets on again."""
        with self._lock:
            self._left, self.is_cut = None, False

    def close(self) -> None:
        self._break()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _break(self) -> None:
        with self._lock:
            self.is_cut = True
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                client.close()
                continue
            try:
                server = socket.create_connection(self._to)
            except OSError:
                client.close()
                continue
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            for ends, is_up in ((pair, True), (pair[::-1], False)):
                threading.Thread(target=self._hand_on, args=(*ends, is_up), daemon=True).start()

    def _hand_on(self, come: socket.socket, go: socket.socket, is_up: bool) -> None:
        with suppress(OSError):
            while octets := come.recv(1 << 16):
                if is_up and self._is_over(len(octets)):
                    self._break()
                    break
                if not is_up:
                    self.answered += len(octets)
                go.sendall(octets)
        for end in (come, go):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if not is_up:
            come.close()
            go.close()

    def _is_over(self, octets: int) -> bool:
        with self._lock:
            self.sent += octets
            if self._left is not None:
                self._left -= octets
            return self._left is not None and self._left <= 0
