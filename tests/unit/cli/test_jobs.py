"""`recorder jobs` with a real scheduler."""

import json
import subprocess
import sys

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import jobs_pb2

from services.cli import jobviews
from services.cli.main import run
from services.runtime.settings import SchedulerSettings
from services.scheduler.app import Scheduler


@pytest.fixture
def scheduler(tmp_path):
    running = Scheduler(SchedulerSettings(listen="127.0.0.1:0", data=tmp_path / "data"))
    yield running
    running.stop()


@pytest.fixture
def recorder(scheduler, capsys):
    """Runs `recorder jobs …`; returns its code, stdout and stderr."""

    def call(*arguments):
        code = run(["jobs", *arguments, "--scheduler", scheduler.address])
        return code, *capsys.readouterr()

    return call


def test_a_job_from_its_creation_to_its_end(recorder):
    code, out, err = recorder("create", "errors", "--kfl", "response.status == 500")
    assert code == 0
    assert out.startswith("Created errors: ")
    assert "recorder ask 'record(\"errors\")'" in err

    code, out, _ = recorder("list")
    assert code == 0
    assert "errors" in out
    assert "response.status == 500" in out

    code, out, _ = recorder("get", "errors")
    assert code == 0
    assert "240 minutes each" in out
    assert "64 KiB" in out

    code, out, _ = recorder("stop", "errors")
    assert code == 0
    assert out.startswith("Stopped errors: 0 entries in 0 streams, ")

    assert recorder("delete", "errors")[0] == 0
    code, out, err = recorder("list")
    assert (code, out) == (0, "")
    assert "There are no jobs" in err


def test_json_is_for_programs(recorder):
    code, out, err = recorder(
        *("create", "nightly", "--start", "08:45", "--iterations", "3", "--duration", "60"),
        *("--expiration", "1440", "--body-limit", "0", "--output", "json"),
    )
    assert (code, err) == (0, "")
    job = json.loads(out)
    assert job["spec"] == {
        "name": "nightly",
        "kfl": "http or dns",
        "start_time": "08:45",
        "daily_iterations": 3,
        "duration_minutes": 60,
        "expiration_minutes": 1440,
        "body_limit": 0,
        "imported": False,
        "run_missed": "late",
        "pinned": False,
        "labels": {},
        "description": "",
        "size_limit_bytes": 0,
        "on_full": "stop",
    }
    assert len(job["next_start_times"]) in (2, 3)  # the first may have begun
    assert job["next_start_time"].endswith("08:45:00Z") or job["state"] == "recording"
    assert json.loads(recorder("list", "--output", "json")[1])[0]["spec"]["name"] == "nightly"
    assert json.loads(recorder("get", "nightly", "--output", "json")[1])["runs"] == job["runs"]


def test_jobs_are_found_extended_pinned_and_unpinned(recorder):
    later = ("--start", "00:00", "--label", "team=shop", "--description", "Night shift")
    assert recorder("create", "night", *later, "--iterations", "3", "--run-missed", "skip")[0] == 0
    limits = ("--size-limit", "5Gi", "--on-full", "drop-oldest", "--pin")
    assert recorder("create", "other", *limits)[0] == 0

    def names(*arguments):
        code, out, _ = recorder("list", *arguments, "--output", "json")
        assert code == 0
        return [job["spec"]["name"] for job in json.loads(out)]

    assert names("--search", "shift") == ["night"]
    assert names("-l", "team!=shop") == ["other"]
    assert names("--state", "expired", "--state", "failed") == []
    assert names("--limit", "1") == ["night"]
    assert "No job fits" in recorder("list", "--search", "absent")[2]

    out = recorder("get", "night")[1]
    for text in ("team=shop", "Night shift", "late runs    are skipped", "00:00Z"):
        assert text in out
    out = recorder("get", "other", "--history")[1]
    for text in ("5 GiB", "its oldest data makes room", "until it is unpinned", "Created."):
        assert text in out

    code, out, _ = recorder("extend", "night", "--iterations", "7", "--expiration", "9000")
    assert (code, out.startswith("Extended night: ")) == (0, True)
    code, _, err = recorder("extend", "night", "--iterations", "2")
    assert (code, err) == (
        1,
        "The job night runs 7 days already, and is not made shorter. Stop it to end it.\n",
    )
    assert recorder("extend", "night")[0] == 2

    code, _, err = recorder("delete", "other")
    assert (code, err) == (1, "The job other is pinned. Unpin it first, or force the deletion.\n")
    assert recorder("unpin", "other", "--reason", "case closed")[0] == 0
    history = json.loads(recorder("get", "other", "--output", "json")[1])["changes"]
    assert history[-1]["reason"] == "Unpinned: case closed"
    assert recorder("delete", "other")[0] == 0
    assert recorder("pin", "night", "--run", "9")[0] == 1
    assert recorder("pin", "night")[0] == 0
    assert recorder("delete", "night", "--force")[0] == 0
    for wrong in (("--size-limit", "much"), ("--label", "x"), ("--label", "a b=c")):
        code, _, err = recorder("create", "wrong", *wrong)
        assert (code, err.startswith(wrong[0])) == (2, True)


def test_a_watch_goes_on_where_it_was_left(scheduler, recorder):
    assert recorder("create", "first", "--start", "00:00")[0] == 0
    revision = json.loads(recorder("get", "first", "--output", "json")[1])["changes"][-1][
        "revision"
    ]
    assert recorder("create", "second", "--start", "00:00")[0] == 0
    watcher = subprocess.Popen(
        [
            *(sys.executable, "-m", "services.cli.main", "jobs", "watch", "--output", "json"),
            *("--after", str(revision), "--scheduler", scheduler.address),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    change, synced = (json.loads(watcher.stdout.readline()) for _ in range(2))
    watcher.terminate()
    watcher.communicate(timeout=30)
    assert change["job"]["spec"]["name"] == "second"
    assert synced["synced"]
    assert synced["revision"] > revision


def test_what_is_wrong_is_said_field_by_field(recorder):
    code, out, err = recorder("create", "Bad Name", "--start", "25:00", "--duration", "5")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert any(line.startswith("name: 'Bad Name'") for line in lines)
    assert any(line.startswith("--start: '25:00' is no start time") for line in lines)


def test_a_wrong_statement_has_a_caret(recorder):
    code, _, err = recorder("create", "x", "--kfl", "http and and")
    assert code == 2
    text, caret, _ = err.splitlines()
    assert text[caret.index("^") :].startswith("and")


def test_a_job_that_is_not_there_and_a_name_that_is_taken(recorder):
    for command in ("get", "stop", "delete"):
        code, out, err = recorder(command, "absent")
        assert (code, out) == (2, "")
        assert "absent" in err
        assert len(err.splitlines()) == 1
    assert recorder("create", "one")[0] == 0
    code, _, err = recorder("create", "one")
    assert code == 2
    assert "one" in err


def test_watch_shows_changes_until_ctrl_c(scheduler, recorder):
    import signal

    assert recorder("create", "first", "--start", "00:00")[0] == 0
    watcher = subprocess.Popen(
        [
            *(sys.executable, "-m", "services.cli.main", "jobs", "watch", "--output", "json"),
            *("--scheduler", scheduler.address),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    change = json.loads(watcher.stdout.readline())
    assert (change["job"]["spec"]["name"], change["deleted"]) == ("first", False)
    assert recorder("delete", "first")[0] == 0
    while not change.get("deleted"):
        change = json.loads(watcher.stdout.readline())
    assert change["job"]["spec"]["name"] == "first"
    watcher.send_signal(signal.SIGINT)
    _, err = watcher.communicate(timeout=30)
    assert (watcher.returncode, err) == (130, "")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (500 << 20, "500 MiB")]
)
def test_sizes(size, text):
    assert jobviews.in_binary(size) == text


def test_words_for_states():
    assert jobviews.state_word(jobs_pb2.JOB_STATE_STORAGE_LIMITED) == "storage limited"
    assert jobviews.state_word(99) == "state 99"


def test_a_time_that_is_far_has_its_date():
    assert jobviews.when(Timestamp(seconds=1_700_000_000)) == "2023-11-14 22:13Z"
    now = Timestamp()
    now.GetCurrentTime()
    assert len(jobviews.when(now)) == len("22:13:20Z")
