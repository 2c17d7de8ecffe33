"""`recorder verify` over a recording that a scheduler has made."""

import json
import shutil

import pytest

from services.cli.main import run


@pytest.fixture
def verify(services, capsys):
    def call(*arguments, data=services["folder"] / "data"):
        code = run(["verify", *arguments, "--data", str(data)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def copy(services, tmp_path):
    """A copy of what the scheduler has stored, for tests that damage it."""
    shutil.copytree(services["folder"] / "data" / "recordings", tmp_path / "recordings")
    return tmp_path


def test_a_recording_is_verified_while_the_scheduler_runs(verify):
    code, out, err = verify("shop")
    assert (code, err) == (0, "")
    assert out.startswith("run 1: ok, ")
    assert " entries, " in out
    assert len(out.splitlines()) == 1
    assert verify("shop", "--run", "1") == (0, out, "")


def test_json(verify):
    code, out, err = verify("shop", "--output", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["recording"], found["ok"]) == ("shop", True)
    (only,) = found["runs"]
    assert only["rows"]["entries"] > 0
    assert only["bytes"] > 0


def test_the_first_difference_is_shown(verify, copy):
    path = next(copy.glob("recordings/shop/0001/packets-*"))
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"x")
    code, out, err = verify("shop", data=copy)
    sentence = f"0001/{path.name}: expected {size} octets, found {size + 1}.\n"
    assert (code, out, err) == (1, "", sentence)
    code, out, err = verify("shop", "--output", "json", data=copy)
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert found["ok"] is False
    assert found["runs"][0]["difference"] == {
        "file": f"0001/{path.name}",
        "expected": f"{size} octets",
        "found": f"{size + 1}",
    }


def test_what_a_damaged_folder_says_cannot_move_the_cursor(verify, copy):
    (copy / "recordings/shop/0001/\x1b[2Jx").write_bytes(b"")
    code, _, err = verify("shop", data=copy)
    assert code == 1
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], 'There is no recording "nothing" in '),
        (["../x"], "'../x' cannot name a recording"),
        (["shop", "--run", "7"], 'The recording "shop" has no run 7; its runs are 1.'),
        (["shop", "--run", "9999999"], "9999999 is not the number of a run"),
    ],
)
def test_what_is_not_there_is_bad_input(verify, arguments, says):
    code, out, err = verify(*arguments)
    assert (code, out) == (2, "")
    assert says in err
