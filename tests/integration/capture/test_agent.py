"""A capture agent as a process of its own, from its start to SIGTERM."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from recorder.v1 import ingest_pb2

from services.capture import outbox
from tests.unit.capture.ingest_server import Ingest
from tests.unit.capture.traffic import Conversation, write_pcap

SECONDS = 300  # kernels may have to be compiled

pytestmark = pytest.mark.timeout(SECONDS + 60)

ON_LOOPBACK = """
import http.client, http.server, os, signal, subprocess, sys, threading, time
from pathlib import Path
from recorder.v1 import ingest_pb2
from tests.unit.capture import ingest_server
from tests.unit.capture.ingest_server import Ingest

stored = sys.argv[1]
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
now = int(time.time())
wanted = ingest_pb2.Assignment(job="fails", run=1, kfl="response.status == 500", body_limit=100)
wanted.start_time.seconds, wanted.stop_time.seconds = now - 10, now + 1000
ingest = Ingest(Path(stored), assignments=[wanted])
server, port = ingest_server.serve(ingest)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(500 if self.path == "/fails" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass

web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=web.serve_forever, daemon=True).start()

def call(*paths):
    client = http.client.HTTPConnection("127.0.0.1", web.server_port)
    for path in paths:
        client.request("GET", path)
        client.getresponse().read()
    client.close()

agent = subprocess.Popen([
    sys.executable, "-c",
    "from services.runtime.settings import CaptureSettings;"
    "from services.capture.app import run; import sys;"
    f"sys.exit(run(CaptureSettings(scheduler='127.0.0.1:{port}', node='node-1', "
    "interface=['lo'])))",
])
try:
    deadline = time.monotonic() + 240
    while not ingest.stored() and time.monotonic() < deadline:
        call("/warm", "/fails")
        time.sleep(0.2)
    call("/fine")
    call("/first", "/fails", "/last")
    time.sleep(0.3)
    agent.send_signal(signal.SIGTERM)
    code = agent.wait(30)
finally:
    agent.kill()
    agent.wait()
server.stop(0).wait()
sys.exit(code)
"""


def entries(ingest: Ingest) -> list[dict[str, object]]:
    return [
        row
        for batch in ingest.stored()
        for table, arrow_ipc, _ in batch.parts
        if table == ingest_pb2.TABLE_ENTRIES
        for row in outbox.decode(arrow_ipc).drop_columns(["start_time"]).to_pylist()
    ]


@pytest.mark.root
def test_an_agent_records_an_interface_and_drains_at_sigterm(tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    ran = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", ON_LOOPBACK, str(stored)],
        timeout=SECONDS + 10,
        check=False,
    )
    assert ran.returncode == 0
    ingest = Ingest(stored)
    found = entries(ingest)
    by_path = {str(row["request_path"]) for row in found}
    assert by_path >= {"/fails", "/last"}
    assert "/fine" not in by_path
    (stream,) = {row["stream"] for row in found if row["request_path"] == "/last"}
    packets = [
        outbox.decode(arrow_ipc)
        for batch in ingest.stored()
        for table, arrow_ipc, _ in batch.parts
        if table == ingest_pb2.TABLE_PACKETS
    ]
    frames = [
        frame
        for table in packets
        for frame, of in zip(
            table.column("frame").to_pylist(), table.column("stream").to_pylist(), strict=True
        )
        if of == stream
    ]
    assert any(b"GET /first" in frame for frame in frames), "what came before the match"
    assert ingest.stored()[-1].final
    assert [batch.final for batch in ingest.stored()].count(True) == 1


def test_an_agent_that_replays_a_file_ends_when_it_is_delivered(tmp_path: Path) -> None:
    from tests.unit.capture import ingest_server

    talk = Conversation(40001)
    write_pcap(tmp_path / "capture.pcap", talk.opening() + talk.call("/a", 200))
    wanted = ingest_pb2.Assignment(job="all", run=1, kfl="http", body_limit=100)
    wanted.stop_time.FromJsonString("2200-01-01T00:00:00Z")
    ingest = Ingest(tmp_path / "stored", assignments=[wanted])
    server, port = ingest_server.serve(ingest)
    program = (
        "import sys; from pathlib import Path; from services.capture.app import run;"
        "from services.runtime.settings import CaptureSettings;"
        f"sys.exit(run(CaptureSettings(scheduler='127.0.0.1:{port}', node='node-1',"
        "replay=Path(sys.argv[1]))))"
    )
    try:
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "capture.pcap")],
            timeout=SECONDS,
            check=True,
        )
    finally:
        server.stop(0).wait()
    assert [row["request_path"] for row in entries(ingest)] == ["/a"]
    assert ingest.stored()[-1].final


def test_agents_choose_the_same_streams_and_record_them_whole(tmp_path: Path) -> None:
    from tests.unit.capture import ingest_server

    talks = [Conversation(40_000 + number) for number in range(40)]
    packets = [talk.opening() + talk.call(f"/{n}", 200) for n, talk in enumerate(talks)]
    write_pcap(tmp_path / "capture.pcap", [packet for each in packets for packet in each])
    wanted = ingest_pb2.Assignment(job="all", run=1, kfl="http", body_limit=100)
    wanted.stop_time.FromJsonString("2200-01-01T00:00:00Z")
    command = [sys.executable, "-m", "services.cli.main", "capture"]
    command += ["--replay", str(tmp_path / "capture.pcap"), "--sample", "40", "--node"]
    found = []
    for node in ("of-the-client", "of-the-server"):
        ingest = Ingest(tmp_path / node, assignments=[wanted])
        server, port = ingest_server.serve(ingest)
        try:
            address = ["--scheduler", f"127.0.0.1:{port}"]
            subprocess.run([*command, node, *address], timeout=SECONDS, check=True)
        finally:
            server.stop(0).wait()
        found.append({str(row["request_path"]) for row in entries(ingest)})
        recorded = sum(
            rows
            for batch in ingest.stored()
            for table, _, rows in batch.parts
            if table == ingest_pb2.TABLE_PACKETS
        )
        assert recorded == len(found[-1]) * len(packets[0])
    assert found[0] == found[1]
    assert 5 < len(found[0]) < 30


def test_an_agent_that_waits_for_its_scheduler_ends_at_sigterm(tmp_path: Path) -> None:
    write_pcap(tmp_path / "capture.pcap", Conversation(40001).opening())
    program = (
        "import sys; from pathlib import Path; from services.capture.app import run;"
        "from services.runtime.settings import CaptureSettings;"
        "from services.runtime.logging import configure; configure();"
        "sys.exit(run(CaptureSettings(scheduler='127.0.0.1:1', node='node-1',"
        "replay=Path(sys.argv[1]))))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "capture.pcap")],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "capture agent runs" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(SECONDS) == 0
