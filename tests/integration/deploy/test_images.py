"""The images: built, then run as the chart runs them, and they record real traffic.

Where the build has no way to PyPI, put the wheels into deploy/docker/wheels (docs/deploying.md) and
set RECORDER_BUILD_ARGS="PIP_NO_INDEX=1".
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).parents[3]

SERVICES = ("capture", "scheduler", "query", "gateway")

BUILD_SECONDS = 1800.0
"""On a machine that has nothing yet: three times pip, and a minute of compiling."""

WAIT_SECONDS = 60.0

CONTEXT = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "kfl",
    "recordings",
    "services",
    "protos/gen",
    "deploy/docker",
)
"""What the Dockerfile copies."""

# As the pods of the chart.
RESTRICTED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
AS_SERVICE = (*RESTRICTED, "--tmpfs", "/tmp")
AS_AGENT = (*AS_SERVICE, "--cap-add", "NET_RAW")

pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_SECONDS)]


def docker(*arguments: str, check: bool = True, input: bytes | None = None) -> str:
    """Run the docker command; return what it says on stdout and stderr."""
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        check=False,
        input=input,
        timeout=BUILD_SECONDS,
    )
    said = done.stdout.decode(errors="replace")
    if check and done.returncode != 0:
        failed = done.stderr.decode(errors="replace")
        pytest.fail(f"docker {' '.join(arguments[:4])} …\n{said[-4000:]}{failed[-4000:]}")
    return said + done.stderr.decode(errors="replace")


def context() -> bytes:
    """The files that a build needs, as a tar file: the same with and without BuildKit."""

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in member.name else member

    packed = io.BytesIO()
    # Docker tells an archive by its first 512 octets, and does not know those of the pax format.
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in CONTEXT:
            archive.add(ROOT / path, path, filter=wanted)
    return packed.getvalue()


def shell(image: str, script: str) -> str:
    """What a script says in a container of an image."""
    return docker("run", "--rm", "--entrypoint", "/bin/sh", image, "-c", script)


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    """Names of the images that were built from the sources as they are."""
    packed = context()
    given = os.environ.get("RECORDER_BUILD_ARGS", "").split()
    arguments = [word for each in given for word in ("--build-arg", each)]
    names = {}
    for service in SERVICES:
        names[service] = f"traffic-recorder-{service}:test"
        docker(
            *("build", "-q", "-f", "deploy/docker/Dockerfile", "--target", service),
            *("-t", names[service], *arguments, "-"),
            input=packed,
        )
    yield names
    # The builder's cache keeps the layers.
    docker("rmi", "--no-prune", *names.values(), check=False)


class Containers:
    """Containers of one test, their volume and their network, removed at its end."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex[:8]
        self.names: list[str] = []
        self.volume = self.network = f"recorder-{self.mark}"
        docker("volume", "create", self.volume)
        docker("network", "create", self.network)

    def start(self, name: str, image: str, *options: str) -> str:
        """Run an image in the background; return the container's name, which others find it by."""
        full = f"recorder-{name}-{self.mark}"
        self.names.append(full)
        docker("run", "-d", "--name", full, "--network", self.network, *options, image)
        return full

    def remove(self) -> None:
        for name in self.names:
            docker("rm", "-f", "-v", name, check=False)
        docker("volume", "rm", "-f", self.volume, check=False)
        docker("network", "rm", self.network, check=False)


@pytest.fixture
def containers() -> Iterator[Containers]:
    made = Containers()
    yield made
    made.remove()


def address(container: str, port: int) -> str:
    """Where a container's published port is on this machine."""
    return docker("port", container, f"{port}/tcp").splitlines()[0].replace("0.0.0.0", "127.0.0.1")


def wait_until_serving(container: str, port: int) -> str:
    """Ask as a probe of Kubernetes does; return the address."""
    found = address(container, port)
    deadline = time.monotonic() + WAIT_SECONDS
    with grpc.insecure_channel(found) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                time.sleep(0.2)
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return found
    pytest.fail(f"{container} does not serve:\n{docker('logs', container, check=False)}")


def wait_for_line(container: str, text: str) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    logged = ""
    while time.monotonic() < deadline:
        logged = docker("logs", container, check=False)
        if text in logged:
            return logged
        time.sleep(0.2)
    pytest.fail(f"{container} never said {text!r}:\n{logged}")


def test_images_carry_what_their_service_runs_with_and_no_more(images: dict[str, str]) -> None:
    own = {"capture": "numba", "scheduler": "sqlalchemy", "query": "duckdb", "gateway": "uvicorn"}
    unwanted = ("scapy", "pytest", "helm_python", "mypy", "hypothesis", "pip", "grpc_tools", "uv")
    for service, image in images.items():
        packages = set(shell(image, "ls /opt/recorder/lib/python3*/site-packages").split())
        assert own[service] in packages
        assert not packages & set(unwanted)
        assert not packages & {name for other, name in own.items() if other != service}
        assert shell(image, "command -v cc gcc clang || true").strip() == ""


def test_only_the_agent_is_root(images: dict[str, str]) -> None:
    users = {s: docker("inspect", "-f", "{{.Config.User}}", i).strip() for s, i in images.items()}
    assert users.pop("capture") == "0:0"
    assert set(users.values()) == {"10001:10001"}


def test_a_service_ends_in_order_when_it_is_told_to(
    images: dict[str, str], containers: Containers
) -> None:
    options = (*AS_SERVICE, "-P", "-v", f"{containers.volume}:/data")
    name = containers.start("scheduler", images["scheduler"], *options)
    wait_until_serving(name, 8897)
    docker("stop", "-t", "40", name)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", name).strip() == "0"


def test_a_capability_that_is_missing_is_said_in_a_sentence(images: dict[str, str]) -> None:
    said = docker("run", "--rm", *AS_SERVICE, images["capture"], check=False)
    assert "CAP_NET_RAW" in said
    assert "Traceback" not in said


def test_a_folder_for_the_kernels_that_is_missing_is_said_in_a_sentence(
    images: dict[str, str],
) -> None:
    without_tmp = ("run", "--rm", *RESTRICTED, "--cap-add", "NET_RAW")
    said = docker(*without_tmp, images["capture"], check=False)
    assert "--tmpfs /tmp" in said
    assert "Traceback" not in said


def test_three_containers_record_what_goes_over_the_wire(
    images: dict[str, str], containers: Containers
) -> None:
    data = f"{containers.volume}:/data"
    scheduler = containers.start("scheduler", images["scheduler"], *AS_SERVICE, "-P", "-v", data)
    jobs = wait_until_serving(scheduler, 8897)
    query = containers.start("query", images["query"], *AS_SERVICE, "-P", "-v", f"{data}:ro")
    questions = wait_until_serving(query, 8898)
    recorder("jobs", "create", "web", "--kfl", "http", "--scheduler", jobs)
    # The network of the agent's container is what its traffic goes over, as on a node.
    agent = containers.start(
        "capture", images["capture"], *AS_AGENT, "-e", f"RECORDER_SCHEDULER={scheduler}:8897"
    )
    wait_for_line(agent, "run started")
    traffic = (
        "import http.server, threading, urllib.request as u\n"
        "h = http.server.SimpleHTTPRequestHandler\n"
        "s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), h)\n"
        "threading.Thread(target=s.serve_forever, daemon=True).start()\n"
        "[u.urlopen(f'http://127.0.0.1:{s.server_port}/bin/').read() for _ in range(5)]\n"
    )
    docker("exec", agent, "python", "-c", traffic)
    found: list[dict[str, object]] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while len(found) < 5 and time.monotonic() < deadline:
        time.sleep(0.5)
        said = recorder("ask", 'record("web")', "--query-address", questions, "--output", "json")
        found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert len(found) == 5, docker("logs", agent)
    assert all(entry["response"]["status"] == 200 for entry in found)  # type: ignore[index]
    # Every kernel that this took was in the image: none was compiled while frames came in.
    assert kernels(agent, "/tmp/kernels") == kernels(agent, "/opt/recorder/kernels") != set()
    docker("stop", "-t", "40", agent)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", agent).strip() == "0"


def kernels(container: str, folder: str) -> set[str]:
    """Files of compiled kernels below a folder of a container."""
    found = docker("exec", container, "find", folder, "-name", "*.nbc").split()
    return {path.removeprefix(folder) for path in found}


def recorder(*arguments: str) -> str:
    """Run the command of this machine; return what it says on stdout."""
    done = subprocess.run(
        [str(ROOT / ".venv" / "bin" / "recorder"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )
    return done.stdout if done.returncode == 0 else ""
