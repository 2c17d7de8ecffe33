"""Capture files become recordings of a real scheduler."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from recordings import snapshot
from services.capture.frames import CaptureError
from services.capture.importing import import_file
from services.runtime.errors import UserError
from services.runtime.settings import SchedulerSettings
from services.scheduler.app import Scheduler
from tests.unit.capture.traffic import Conversation, write_pcap


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[SimpleNamespace]:
    data = tmp_path / "data"
    running = Scheduler(SchedulerSettings(listen="127.0.0.1:0", data=data))
    with grpc.insecure_channel(running.address) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)

        def jobs() -> list[str]:
            listed = stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=30).jobs
            return [job.spec.name for job in listed]

        yield SimpleNamespace(address=running.address, data=data, stub=stub, jobs=jobs)
    running.stop()


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Three connections, of which one fails."""
    frames = []
    for port, status in ((40001, 200), (40002, 500), (40003, 200)):
        talk = Conversation(port)
        frames += talk.opening() + talk.call(f"/{status}", status, b"0123456789") + talk.closing()
    write_pcap(tmp_path / "capture.pcap", frames)
    return tmp_path / "capture.pcap"


def rows(scheduler: SimpleNamespace, name: str, table: str) -> list[dict[str, object]]:
    found = snapshot.open(scheduler.data, name)
    tables = [pq.read_table(path) for path in found.files(table)]
    tables.append(found.tail(table))
    columns = [c for c in tables[0].column_names if "time" not in c]
    return pa.concat_tables([t.select(columns) for t in tables]).to_pylist()


def test_a_file_becomes_a_recording(scheduler: SimpleNamespace, capture: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = import_file(
        capture,
        "fails",
        "response.status == 500",
        scheduler.address,
        progress=lambda frames, octets: seen.append((frames, octets)),
    )
    assert (report.state, report.run, report.job) == ("completed", 1, "fails")
    assert (report.entries, report.streams, report.packets) == (1, 1, 8)
    assert report.frames == 24
    assert seen[-1] == (report.frames, report.octets)
    (entry,) = rows(scheduler, "fails", "entries")
    assert (entry["request_path"], entry["response_status"]) == ("/500", 500)
    assert entry["response_body"] == "0123456789"
    assert len(rows(scheduler, "fails", "packets")) == 8
    job = scheduler.stub.GetJob(jobs_pb2.GetJobRequest(name="fails"), timeout=30).job
    assert (job.runs[0].entries, job.runs[0].packets) == (1, 8)


def test_bodies_have_the_length_that_was_asked_for(
    scheduler: SimpleNamespace, capture: Path
) -> None:
    import_file(capture, "short", "http", scheduler.address, body_limit=3)
    assert {row["response_body"] for row in rows(scheduler, "short", "entries")} == {"012"}


def test_a_file_in_which_nothing_matches_is_an_empty_recording(
    scheduler: SimpleNamespace, capture: Path
) -> None:
    report = import_file(capture, "none", "response.status == 404", scheduler.address)
    assert (report.state, report.entries, report.packets) == ("completed", 0, 0)


def test_a_file_that_is_no_capture_makes_no_job(scheduler: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam")
    with pytest.raises(CaptureError, match="not a capture"):
        import_file(tmp_path / "letter.txt", "letter", "http", scheduler.address)
    assert scheduler.jobs() == []


def test_a_file_that_is_cut_short_says_so(
    scheduler: SimpleNamespace, capture: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(capture.read_bytes()[:-10])
    report = import_file(cut, "cut", "http", scheduler.address)
    assert report.state == "completed"
    assert "capture_damage" in {row["kind"] for row in rows(scheduler, "cut", "losses")}


def test_a_gzipped_file_is_unpacked(
    scheduler: SimpleNamespace, capture: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "capture.pcap.gz"
    packed.write_bytes(gzip.compress(capture.read_bytes()))
    assert import_file(packed, "packed", "http", scheduler.address).entries == 3


def test_a_name_that_is_taken_leaves_the_job_that_has_it(
    scheduler: SimpleNamespace, capture: Path
) -> None:
    import_file(capture, "mine", "http", scheduler.address)
    with pytest.raises(UserError, match="mine"):
        import_file(capture, "mine", "dns", scheduler.address)
    assert scheduler.jobs() == ["mine"]
    assert len(rows(scheduler, "mine", "entries")) == 3


@pytest.mark.parametrize(
    ("name", "kfl", "part"),
    [("good", "response.status ==", "KFL|kfl|expected|end"), ("../bad", "http", "name")],
)
def test_what_the_scheduler_does_not_take_is_said_and_nothing_stays(
    scheduler: SimpleNamespace, capture: Path, name: str, kfl: str, part: str
) -> None:
    with pytest.raises(UserError, match=part):
        import_file(capture, name, kfl, scheduler.address)
    assert scheduler.jobs() == []


def test_an_import_that_is_interrupted_leaves_nothing(
    scheduler: SimpleNamespace, capture: Path
) -> None:
    def interrupt(_frames: int, _octets: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(capture, "half", "http", scheduler.address, progress=interrupt)
    assert scheduler.jobs() == []


def test_without_a_scheduler_it_is_said_where_one_was_expected(capture: Path) -> None:
    with pytest.raises(UserError, match=r"no scheduler at 127\.0\.0\.1:1"):
        import_file(capture, "lost", "http", "127.0.0.1:1")
