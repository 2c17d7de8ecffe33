"""`recorder up --demo --once`: from traffic to a table, over three processes."""

import os
import subprocess
import sys

import pytest

UP = [sys.executable, "-m", "services.cli.main", "up", "--demo", "--once"]
WITHOUT = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]


def demonstrate(tmp_path, addresses, *before):
    return subprocess.run(
        [*before, *UP, "--data", str(tmp_path / "data"), *addresses],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


@pytest.mark.root
def test_what_is_captured_is_shown(tmp_path, addresses):
    done = demonstrate(tmp_path, addresses)
    assert done.returncode == 0, done.stderr
    assert 'record("demo") and http' in done.stdout
    for status in ("200", "201", "404", "500"):
        assert status in done.stdout
    assert "on lo" in done.stderr

    again = demonstrate(tmp_path, addresses)
    assert again.returncode == 0, again.stderr
    assert "Deleted the recording demo from before" in again.stderr


def test_without_the_capability_a_file_goes_the_same_way(tmp_path, addresses):
    done = demonstrate(tmp_path, addresses, *(WITHOUT if os.geteuid() == 0 else ()))
    assert "CAP_NET_RAW" in done.stderr
    assert "/api/payments" in done.stdout, done.stderr
    assert done.returncode == 1
    assert "nothing was captured here" in done.stderr
