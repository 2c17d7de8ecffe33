"""`recorder up` as a process that starts processes."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

UP = [sys.executable, "-m", "services.cli.main", "up"]


def start(tmp_path, *arguments):
    return subprocess.Popen(
        [*UP, "--data", str(tmp_path / "data"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(stream, word):
    lines = []
    for line in stream:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(f"{word!r} never came: {''.join(lines)}")


def pids(lines):
    return {
        found[1]: int(found[2])
        for line in lines
        if (found := re.search(r"^ *(\w+) .* pid (\d+)", line))
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_services_answer_until_a_signal_ends_them_in_order(tmp_path, addresses, number):
    process = start(tmp_path, "--no-capture", *addresses)
    lines = read_until(process.stderr, "Serving")
    assert pids(lines).keys() == {"scheduler", "query"}
    jobs = subprocess.run(
        [*UP[:-1], "jobs", "list", "--output", "json", *addresses[:2]],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(jobs.stdout) == []
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines() == ["Stopping query …", "Stopping scheduler …"]


def test_words_of_operators_reach_the_services(tmp_path, addresses):
    words = '{"https": "tls and (http or http2)"}'
    process = start(tmp_path, "--no-capture", *addresses, "--macros", words)
    read_until(process.stderr, "Serving")
    command = [*UP[:-1], "jobs", "create", "mine", "--kfl", "https", "--output", "json"]
    created = subprocess.run(
        [*command, *addresses[:2]], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(created.stdout)["expanded_kfl"] == "tls and (http or http2)"
    ask = [*UP[:-1], "ask", 'record("mine") and htps', *addresses[2:]]
    refused = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert "https" in refused.stderr
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_gateway_serves_the_same_over_http(tmp_path, addresses, closed_port):
    http = f"127.0.0.1:{closed_port}"
    refused = start(tmp_path, "--no-capture", *addresses, "--http-listen", http)
    _, err = refused.communicate(timeout=60)
    assert f"--http-listen: {http} cannot be had" in err
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        http = f"127.0.0.1:{probe.getsockname()[1]}"
    process = start(tmp_path, "--no-capture", *addresses, "--http-listen", http)
    assert f"http://{http}" in "".join(read_until(process.stderr, "Serving"))
    with urllib.request.urlopen(f"http://{http}/api/v1/jobs", timeout=30) as answer:
        assert json.load(answer) == {"jobs": [], "nextPageToken": ""}
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_wrong_words_of_operators_end_it_before_anything_starts(tmp_path, addresses):
    process = start(tmp_path, "--no-capture", *addresses, "--macros", '{"http": "dns"}')
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "--macros: The word `http` exists already. Choose another name.\n"


def test_a_sample_that_is_none_ends_it_before_anything_starts(tmp_path, addresses):
    process = start(tmp_path, *addresses, "--sample", "0")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("--sample: '0' is no part of the streams; write percent, above 0")


def test_when_one_dies_the_rest_ends_too(tmp_path, addresses):
    import os

    process = start(tmp_path, "--no-capture", *addresses)
    found = pids(read_until(process.stderr, "Serving"))
    os.kill(found["scheduler"], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The scheduler process has ended by SIGKILL" in err
    assert "Stopping query" in err


def test_an_address_that_is_taken_is_not_someone_elses_service(tmp_path, addresses):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        process = start(tmp_path, "--no-capture", "--scheduler", taken)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"--scheduler: {taken} cannot be had" in err
    assert not (tmp_path / "data").exists()
