"""Schedulers and a query service as processes of their own, with recordings in a bucket."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from recordings import archivecheck, layout, schema, snapshot, verify
from recordings.cache import Cache
from recordings.manifest import Manifest
from recordings.remote import Remote
from recordings.storage import Storage
from services.capture.uplink import Uplink
from services.runtime.channel import open_channel

SECONDS = 60.0
FRAMES, FRAME = 12, 1 << 18
OCTETS = FRAMES * FRAME
"""Of noise in each batch: several pieces of an upload."""

RECORDER = (sys.executable, "-m", "services.cli.main")


def wait_until(test):
    deadline = time.monotonic() + SECONDS
    while not (found := test()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return found


class Recorder:
    """A scheduler that is started and ended, and its command line."""

    def __init__(self, data, *settings):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.data = data
        self._settings = settings
        self._process = None
        self.uplink = Uplink(self.address, "node-a", "127.0.0.1")
        self.uplink.start()
        self.sent = 0

    def start(self):
        command = [*RECORDER, "scheduler", "--data", str(self.data), "--listen", self.address]
        self._process = subprocess.Popen(
            [*command, *self._settings], stderr=subprocess.PIPE, text=True
        )
        said = []
        for line in self._process.stderr:
            said.append(line)
            if "scheduler serves" in line:
                return
        raise AssertionError("".join(said))

    def end(self, how=signal.SIGTERM):
        self._process.send_signal(how)
        self._process.stderr.close()
        assert self._process.wait(SECONDS) in (0, -how)

    def close(self):
        self.uplink.stop()
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)

    def say(self, *words):
        """Return the exit code and what a command wrote."""
        done = subprocess.run(
            [*RECORDER, *words],
            env={**os.environ, "RECORDER_SCHEDULER": self.address},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return done.returncode, done.stdout + done.stderr

    def record(self, batches=1):
        for _ in range(batches):
            self.sent += 1
            rows = [
                {"stream": "0123456789abcdef", "node_name": "node-a", "time": 0, "link_type": 1}
                | {"original_length": 60, "frame": bytes([self.sent, number]) + os.urandom(FRAME)}
                for number in range(FRAMES)
            ]
            self.uplink.send("live", 1, [("packets", pa.Table.from_pylist(rows, schema.PACKETS))])
        assert self.uplink.flush(SECONDS)

    def state(self):
        """Return how the run stands."""
        with open_channel(self.address) as channel:
            stub = jobs_pb2_grpc.JobsServiceStub(channel)
            job = stub.GetJob(jobs_pb2.GetJobRequest(name="live"), timeout=SECONDS).job
        return job.runs[0] if job.runs else None


@pytest.fixture
def recorder(tmp_path):
    made = []

    def make(*settings):
        made.append(Recorder(tmp_path / "data", *settings))
        made[0].start()
        code, text = made[0].say("jobs", "create", "live")
        assert code == 0, text
        wait_until(made[0].state)
        return made[0]

    yield make
    for each in made:
        each.close()


def numbers(taken):
    """Return how many packets of each batch are there, none of them twice."""
    frames = [frame[:2] for frame in taken.rows_after("packets", {})["frame"].to_pylist()]
    assert len(set(frames)) == len(frames)
    return Counter(frame[0] for frame in frames)


@pytest.mark.parametrize("after", [1_000_000, 4_000_000, 6_000_000])
def test_a_scheduler_that_is_killed_while_it_moves_loses_nothing(recorder, bucket, tmp_path, after):
    made = recorder("--storage", bucket.url())
    made.record(2)
    begin = bucket.proxy.sent
    assert made.say("jobs", "archive", "live", "--no-wait")[0] == 0
    wait_until(lambda: bucket.proxy.sent - begin > after)
    made.end(signal.SIGKILL)
    made.start()
    made.record(1)
    code, text = made.say("jobs", "archive", "live")
    assert (code, text.count("copied")) == (0, 1), text
    folder = layout.run(made.data, "live", 1)
    assert all(segment.is_remote for segment in Manifest.load(folder).segments)
    made.end()
    storage = Storage(bucket.url())
    (tmp_path / "cache").mkdir()
    reader = snapshot.Reader(made.data, 0, storage, Cache(tmp_path / "cache", 64 << 20))
    assert numbers(reader.snapshot("live")) == dict.fromkeys((1, 2, 3), FRAMES)
    for found in (
        *verify.check(made.data, "live", None, 0, storage),
        *archivecheck.check(Remote(bucket.url()), "live"),
    ):
        assert found.difference is None, found.difference.sentence()


def test_a_copy_that_stops_in_the_middle_is_told_and_goes_on(recorder, bucket):
    made = recorder("--archive", bucket.url())
    made.record(2)
    bucket.proxy.cut(OCTETS)
    code, text = made.say("jobs", "archive", "live")
    assert code == 1
    assert re.search(r"Run 1: failed.*; s3://bucket-\d+/recorder/recordings/live/0001/", text)
    made.record(1)  # which does not mind
    bucket.proxy.mend()
    wait_until(lambda: made.state().archive.state == jobs_pb2.ARCHIVE_STATE_COPIED)
    code, text = made.say("jobs", "archive", "live")
    assert code == 0, text
    code, text = made.say("verify", "live", "--data", bucket.url())
    assert (code, "run 1: ok, 0 entries, 0 streams, 36 packets" in text) == (0, True), text
    name = next(k for k in bucket.files() if k.endswith(".parquet"))
    octets = bytearray(bucket.read(name))
    octets[OCTETS] ^= 1
    bucket.write(name, bytes(octets))
    code, text = made.say("verify", "live", "--data", bucket.url())
    assert code == 1
    assert f"{Path(name).name}: expected SHA-256 " in text


def test_both_at_once_are_refused(tmp_path):
    command = [*RECORDER, "scheduler", "--data", str(tmp_path)]
    places = ["--archive", "file:///a", "--storage", "file:///b"]
    done = subprocess.run([*command, *places], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "give one of them" in done.stderr
