"""What a person can get wrong: one clear answer each, and nothing half made is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from services.runtime.channel import open_channel
from tests.e2e.services import Ran, Recorder
from tests.unit.capture.traffic import Conversation, write_pcap


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Scheduler and query service, and a recording named taken."""
    made = Recorder(tmp_path_factory.mktemp("bad"))
    try:
        made.start_scheduler()
        made.start_query()
        made.say("jobs", "create", "later", "--start", "00:00")
        file = made.folder / "taken.pcap"
        write_pcap(file, Conversation(40001).opening())
        made.say("import", str(file), "--record", "taken")
        yield made
    finally:
        made.close()


def refused(recorder: Recorder, *arguments: str, lines: int = 1) -> Ran:
    """Run a command that is to be refused as bad input; nothing is to change by it."""
    before = state(recorder)
    ran = recorder.run(*arguments)
    assert ran.code == 2, ran
    assert ran.out == "", ran
    assert "Traceback" not in ran.said
    assert 1 <= len(ran.said.splitlines()) <= lines, ran
    assert state(recorder) == before
    return ran


def state(recorder: Recorder) -> tuple[list[str], list[str]]:
    """Return the jobs, and the folders of recordings."""
    with open_channel(recorder.scheduler_address) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        jobs = stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=30).jobs
    folders = sorted(path.name for path in (recorder.data / "recordings").glob("*"))
    return [str(job) for job in jobs], folders


CREATE = ("jobs", "create")

WRONG: Sequence[tuple[tuple[str, ...], str]] = (
    ((*CREATE, "Not_A_Name"), "name"),
    ((*CREATE, "../../etc"), "name"),
    ((*CREATE, ""), "name"),
    ((*CREATE, "x" * 64), "63"),
    ((*CREATE, "taken"), "There is a job named taken already"),
    ((*CREATE, "new", "--start", "25:00"), "25:00"),
    ((*CREATE, "new", "--start", "noon"), "noon"),
    ((*CREATE, "new", "--start", "8:5"), "8:5"),
    ((*CREATE, "new", "--duration", "-5"), "--duration"),
    ((*CREATE, "new", "--duration", "0"), "--duration"),
    ((*CREATE, "new", "--duration", "1441", "--iterations", "2"), "1440"),
    ((*CREATE, "new", "--duration", "an hour"), "--duration"),
    ((*CREATE, "new", "--expiration", "0"), "--expiration"),
    ((*CREATE, "new", "--expiration", "4294967295"), "4294967295"),
    ((*CREATE, "new", "--iterations", "-1"), "--iterations"),
    ((*CREATE, "new", "--iterations", "100000"), "--iterations: 100000"),
    ((*CREATE, "new", "--body-limit", "-1"), "--body-limit"),
    ((*CREATE, "new", "--body-limit", "4000000000"), "4000000000"),
    ((*CREATE, "new", "--kfl", 'record("taken")'), "record()"),
    ((*CREATE, "new", "--colour", "red"), "--colour"),
    (CREATE, "NAME"),
    (("jobs", "get", "takne"), "Did you mean taken?"),
    (("jobs", "get", "../taken"), "name"),
    (("jobs", "stop", "nothing"), "There is no job named nothing"),
    (("jobs", "delete", "nothing"), "There is no job named nothing"),
    (("ask", 'record("takne")'), 'Did you mean "taken"?'),
    (("ask", 'record("../taken")'), "taken"),
    (("ask", 'record("later")'), "A job has one when its first run has begun"),
    (("ask", 'record("taken")', "--limit", "-1"), "--limit"),
    (("ask", 'record("taken")', "--output", "xml"), "xml"),
    (("ask", 'record("taken")', "--follow", "--latest"), "--latest"),
    (("export", 'record("nothing")', "-o", "/dev/null"), "nothing"),
    (("import", "/no/such/file", "--record", "new"), "/no/such/file"),
    (("import", "/proc/self", "--record", "new"), "/proc/self"),
    (("dissect", "/no/such/file"), "/no/such/file"),
    (("ask", 'record("taken")', "--query-address", "nowhere"), "nowhere"),
    (("jobs", "list", "--scheduler", "host:99999"), "host:99999"),
    (("frobnicate",), "frobnicate"),
    (("scheduler", "--storage-limit", "lots"), "lots"),
    (("scheduler", "--listen", "nonsense"), "nonsense"),
    (("query", "--threads", "-3"), "-3"),
    (("capture", "--ring-memory", "0"), "ring-memory"),
    (("capture", "--interface", "nowhere0"), "nowhere0"),
    (("capture", "--replay", "/no/such/file"), "/no/such/file"),
)  # fmt: skip


@pytest.mark.parametrize(("arguments", "named"), WRONG, ids=[" ".join(a)[:60] for a, _ in WRONG])
def test_it_is_told_in_a_line_and_changes_nothing(
    serving: Recorder, arguments: tuple[str, ...], named: str
) -> None:
    ran = refused(serving, *arguments)
    assert named in ran.said, ran


STATEMENTS = (
    ("response.status = 500", "1", "=="),
    ("respone.status == 500", "1", "response"),
    ("http and", "9", ""),
    ("http and\n  respons.status == 1", "2", "response"),
    ('"never closed', "1", ""),
    ("(" * 500, "1", ""),
)


@pytest.mark.parametrize(
    ("command", "text", "place", "hint"),
    [("jobs", *statement) for statement in STATEMENTS]
    + [(command, *STATEMENTS[3]) for command in ("ask", "check", "import")],
)
def test_a_statement_is_shown_where_it_is_wrong(
    serving: Recorder, tmp_path: Path, command: str, text: str, place: str, hint: str
) -> None:
    arguments = {
        "jobs": (*CREATE, "new", "--kfl", text),
        "ask": ("ask", f'record("taken") and ({text})'),
        "check": ("kfl", "check", text),
        "import": ("import", str(tmp_path / "some.pcap"), "--record", "new", "--kfl", text),
    }[command]
    (tmp_path / "some.pcap").write_bytes(PCAP_HEAD)
    ran = refused(serving, *arguments, lines=8)
    assert "line" in ran.said or "^" in ran.said, ran
    assert hint in ran.said, ran
    if command != "ask":
        assert place in ran.said, ran


PCAP_HEAD = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")


@pytest.mark.parametrize(
    "octets",
    [b"", b"hello, this is no capture", PCAP_HEAD[:10], b"\x1f\x8b broken gzip", bytes(1000)],
    ids=["empty", "text", "cut head", "broken gzip", "zeros"],
)
def test_a_file_that_is_no_capture_makes_no_recording(
    serving: Recorder, tmp_path: Path, octets: bytes
) -> None:
    file = tmp_path / "file.pcap"
    file.write_bytes(octets)
    for arguments in (("import", str(file), "--record", "new"), ("dissect", str(file))):
        ran = refused(serving, *arguments)
        assert "file.pcap" in ran.said, ran


def test_nobody_waits_for_kernels_to_hear_of_a_file_that_is_no_capture(
    serving: Recorder, tmp_path: Path
) -> None:
    file = tmp_path / "file.pcap"
    file.write_text("hello, this is no capture")
    ran = refused(serving, "capture", "--replay", str(file))
    assert "file.pcap" in ran.said, ran


def test_a_folder_cannot_be_asked_by_a_name_that_leads_out(serving: Recorder) -> None:
    for name in ("..", "taken/..", "/etc", "taken/0001"):
        ran = refused(serving, "ask", f'record("{name}")')
        assert "root:" not in ran.said


def test_bad_input_is_told_to_programs_as_well(serving: Recorder) -> None:
    """`--output json` leaves stdout empty and says the same on stderr."""
    ran = refused(serving, *CREATE, "Not A Name", "--output", "json")
    assert "name" in ran.said
    ran = refused(serving, "ask", 'record("no")', "--output", "json")
    assert "There is no recording" in ran.said
