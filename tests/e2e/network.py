"""Two network namespaces joined by a veth pair, and the servers and clients of Debian in them.

The recorder runs in the server's namespace, as an agent does on a node: its own ports are on that
namespace's loopback, so no test can meet a port of the machine or of another test. Interfaces and
namespaces carry the id of this process.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SERVER, CLIENT = "10.99.1.1", "10.99.1.2"
SERVER6, CLIENT6 = "fd99::1", "fd99::2"
LARGE = 200_000
"""Octets of the large bodies: more than a socket's buffer, and many segments."""

END_SECONDS = 30.0

_numbers = itertools.count()

NGINX = """
user root;
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format calls escape=json '{{"method":"$request_method","path":"$request_uri",'
        '"status":$status,"connection":"$remote_addr:$remote_port"}}';
    access_log {folder}/access.log calls;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000;
    client_max_body_size 10m;
    default_type text/plain;
    gzip_types text/plain;
    gzip_min_length 1;
    server {{
        listen {server}:80;
        listen [{server6}]:80;
        location /ok/ {{ return 200 "fine: $uri\\n"; }}
        location /created/ {{ return 201 "made: $uri\\n"; }}
        location /empty/ {{ return 204; }}
        location /found/ {{ return 302 /ok/elsewhere; }}
        location /missing/ {{ return 404 "no: $uri\\n"; }}
        location /broken/ {{ return 500 "broken: $uri\\n"; }}
        root {folder};
        location /large/ {{ try_files /large.txt =404; }}
        location /gzip/ {{ gzip on; try_files /large.txt =404; }}
        location /chunked/ {{ ssi on; ssi_types text/plain; try_files /small.txt =404; }}
        location /store/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
    }}
}}
"""

DNSMASQ = """
keep-in-foreground
user=root
pid-file=
no-resolv
no-hosts
bind-interfaces
listen-address={server},{server6}
except-interface=lo
local=/shop.test/
address=/web.shop.test/10.99.7.7
address=/web.shop.test/fd99::7
cname=www.shop.test,one.shop.test
host-record=one.shop.test,10.99.7.8
mx-host=shop.test,mail.shop.test,10
txt-record=text.shop.test,"v=1 first","second"
{long_text}
log-facility={folder}/dnsmasq.log
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Answer:
    """What curl says about one call."""

    path: str
    method: str
    status: int
    body: bytes
    """As on the wire but for chunks: compressed where it was."""


class Network:
    """The two namespaces, with nginx and dnsmasq in the first one, until close()."""

    def __init__(self, folder: Path) -> None:
        name = f"e2e{os.getpid()}n{next(_numbers)}"
        self.server, self.client = f"{name}s", f"{name}c"
        self.interface, self._far = f"{name[-12:]}s", f"{name[-12:]}c"
        self.folder = folder
        self._children: list[subprocess.Popen[bytes]] = []
        try:
            self._join()
            self._serve()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for child in self._children:
            end(child)
        for name in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def at_client(self, *command: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a command in the client's namespace; it ends with the network."""
        child = subprocess.Popen(  # type: ignore[call-overload]
            [*inside(self.client), *command], **options
        )
        self._children.append(child)
        return child

    # ---- calls

    def curl(
        self, *paths: str, method: str = "GET", more: Sequence[str] = (), host: str = SERVER
    ) -> list[Answer]:
        """Get paths one after the other over one connection; return what came back."""
        folder = self.folder / f"curl{next(_numbers)}"
        folder.mkdir()
        arguments: list[str] = []
        for number, path in enumerate(paths):
            arguments += ["--next"] * bool(number)
            way = ["--head"] if method == "HEAD" else ["--request", method]
            arguments += [*way, *more, "--globoff", "--silent", "--show-error", "--path-as-is"]
            arguments += ["--output", str(folder / str(number))]
            arguments += ["--write-out", "%{response_code} %{size_download}\\n"]
            arguments += [f"http://[{host}]{path}" if ":" in host else f"http://{host}{path}"]
        ran = subprocess.run(
            [*inside(self.client), "curl", *arguments], capture_output=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr.decode()
        answers = []
        lines = ran.stdout.decode().splitlines()
        for number, (path, line) in enumerate(zip(paths, lines, strict=True)):
            status, _ = line.split()
            file = folder / str(number)
            body = file.read_bytes() if file.exists() and method != "HEAD" else b""
            answers.append(Answer(path, method, int(status), body))
        shutil.rmtree(folder)
        return answers

    def dig(self, name: str, kind: str = "A", *more: str, host: str = SERVER) -> list[str]:
        """Ask dnsmasq; return the records of the answer, in the order of text."""
        command = ["dig", f"@{host}", name, kind, "+noall", "+answer", "+nocookie", *more]
        command += ["+tries=1", "+time=20"]
        ran = subprocess.run(
            [*inside(self.client), *command], capture_output=True, text=True, timeout=60, check=True
        )
        return sorted(line for line in ran.stdout.splitlines() if line and line[0] != ";")

    def served(self) -> list[dict[str, object]]:
        """Return the lines of nginx's access log."""
        log = self.folder / "access.log"
        if not log.exists():
            return []
        return [json.loads(line) for line in log.read_text().splitlines()]

    # ---- how it begins

    def _join(self) -> None:
        for name in (self.server, self.client):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.server, "link", "add", self.interface, "type", "veth", "peer", "name",
           self._far, "netns", self.client)  # fmt: skip
        ends = (
            (self.server, self.interface, SERVER, SERVER6),
            (self.client, self._far, CLIENT, CLIENT6),
        )
        for name, interface, address, address6 in ends:
            ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
            ip("-n", name, "-6", "addr", "add", f"{address6}/64", "dev", interface, "nodad")
            ip("-n", name, "link", "set", interface, "up")

    def _serve(self) -> None:
        (self.folder / "large.txt").write_bytes(large_text())
        (self.folder / "small.txt").write_bytes(b'<!--#echo var="uri" --> comes in chunks\n')
        texts = {"folder": self.folder, "server": SERVER, "server6": SERVER6}
        # More than 512 octets: dig has to come back by TCP.
        strings = ",".join(f'"{chr(97 + number) * 200}"' for number in range(4))
        texts["long_text"] = f"txt-record=long.shop.test,{strings}"
        (self.folder / "nginx.conf").write_text(NGINX.format(**texts))
        (self.folder / "dnsmasq.conf").write_text(DNSMASQ.format(**texts))
        commands = (
            ["nginx", "-c", str(self.folder / "nginx.conf"), "-e", str(self.folder / "error.log")],
            ["dnsmasq", f"--conf-file={self.folder / 'dnsmasq.conf'}"],
        )
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        for command in commands:
            self._children.append(
                subprocess.Popen([*inside(self.server), *command], env={**os.environ, "PATH": path})
            )
        wait_until(self._both_answer, 30, "nginx and dnsmasq answer")

    def _both_answer(self) -> bool:
        probes = (
            ["curl", "-s", "-o", "/dev/null", f"http://{SERVER}/ok/begin"],
            ["dig", f"@{SERVER}", "+tries=1", "+time=1", "one.shop.test"],
        )
        return all(
            subprocess.run([*inside(self.client), *probe], capture_output=True, check=False)
            .returncode == 0
            for probe in probes
        )  # fmt: skip


def inside(namespace: str) -> list[str]:
    """Return what runs a command in a namespace, under the id of the process that was started."""
    return ["ip", "netns", "exec", namespace]


def large_text() -> bytes:
    """Return LARGE octets of which no two lines are the same."""
    lines = b"".join(b"line %07d of a large body\n" % number for number in range(LARGE // 20))
    return lines[:LARGE]


def wait_until(
    condition: Callable[[], object], seconds: float, what: str | Callable[[], str]
) -> float:
    """Wait until `condition` returns something true; return the seconds that it took."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds} s: {text}")
        time.sleep(0.05)
    return time.monotonic() - begin


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process that we started, politely and then not."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()
