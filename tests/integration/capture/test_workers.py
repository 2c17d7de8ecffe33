"""Several capture processes that share one interface, and what they tell Prometheus."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from recorder.v1 import ingest_pb2

from services.runtime.errors import UserError
from services.runtime.settings import CaptureSettings
from tests.integration.capture.test_agent import entries
from tests.unit.capture.ingest_server import Ingest

SECONDS = 300  # kernels may have to be compiled

pytestmark = [pytest.mark.root, pytest.mark.timeout(SECONDS + 60)]

CONNECTIONS = 30

SCRIPT = """
import http.client, http.server, os, signal, subprocess, sys, threading, time, urllib.request
from pathlib import Path
from recorder.v1 import ingest_pb2
from tests import apiserver
from tests.unit.capture import ingest_server
from tests.unit.capture.ingest_server import Ingest

stored, connections = sys.argv[1], int(sys.argv[2])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
now = int(time.time())
wanted = ingest_pb2.Assignment(job="all", run=1, kfl="http", body_limit=100)
wanted.start_time.seconds, wanted.stop_time.seconds = now - 10, now + 1000
ingest = Ingest(Path(stored), assignments=[wanted])
server, port = ingest_server.serve(ingest)
api = apiserver.ApiServer().start()
api.put("nodes", apiserver.node("the-node", "127.0.0.1"))
kube = api.kubeconfig(Path(stored).with_name("kubeconfig"))

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
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
    f"sys.exit(run(CaptureSettings(scheduler='127.0.0.1:{port}', node='node-1', workers=2,"
    f"metrics='127.0.0.1:9109', interface=['lo'], kube='{kube}')))",
])

def page():
    try:
        with urllib.request.urlopen("http://127.0.0.1:9109/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""

def until(test, seconds=240):
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, page()
        assert agent.poll() is None
        time.sleep(0.1)

def children():
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == agent.pid and b"spawn_main" in command:
            found.append(int(entry.name))
    return found

def hears(worker):
    call("/warm")
    line = f'recorder_capture_messages_total{{protocol="http",worker="{worker}"}}'
    return line in page()

try:
    until(lambda: all([hears(0), hears(1)]))
    for number in range(connections):
        call(*(f"/first/{number}/{n}" for n in range(3)))
    until(lambda: sum(
        batch.parts != [] for batch in ingest.stored()
    ) and b"/first/" in Path(stored).read_bytes(), 30)
    time.sleep(1)
    before = children()
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(children()) == 2 and children() != before)
    until(lambda: all([hears(0), hears(1)]))
    time.sleep(3)
    for number in range(connections):
        call(*(f"/second/{number}/{n}" for n in range(3)))
    time.sleep(1)
    agent.send_signal(signal.SIGTERM)
    code = agent.wait(60)
finally:
    agent.kill()
    agent.wait()
server.stop(0).wait()
api.stop()
listed = [kind for kind, asked in api.asked if "watch" not in asked]
assert sorted(listed) == sorted(set(listed)), listed  # once for all workers
sys.exit(code)
"""


def test_two_workers_record_every_call_once_and_one_that_is_killed_comes_back(
    tmp_path: Path,
) -> None:
    stored = tmp_path / "stored"
    ran = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", SCRIPT, str(stored), str(CONNECTIONS)],
        timeout=SECONDS + 10,
        check=False,
    )
    assert ran.returncode == 0
    ingest = Ingest(stored)
    paths = Counter(str(row["request_path"]) for row in entries(ingest))
    for part in ("first", "second"):
        wanted = {f"/{part}/{number}/{n}" for number in range(CONNECTIONS) for n in range(3)}
        assert {path: paths[path] for path in wanted} == dict.fromkeys(wanted, 1)
    later = [row for row in entries(ingest) if str(row["request_path"]).startswith("/second/")]
    assert {(row["src_name"], row["dst_name"]) for row in later} == {("the-node", "the-node")}
    agents = {
        batch.agent
        for batch in ingest.stored()
        if any(table == ingest_pb2.TABLE_ENTRIES for table, _, _ in batch.parts)
    }
    assert len(agents) == 3  # two, and the one that came back


def test_a_file_has_one_worker() -> None:
    from services.capture.app import run

    with pytest.raises(UserError, match="one worker"):
        run(CaptureSettings(workers=2, replay=Path("capture.pcap")))
