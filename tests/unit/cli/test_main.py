"""The command as a person calls it: a process of its own."""

import os
import socket
import subprocess
import sys

import pytest

COMMANDS = ("up", "jobs", "ask", "export", "import", "dissect", "verify", "kfl", "capture")


def recorder(*arguments, stdin="", **variables):
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
    )


def test_help_lists_every_command_and_loads_nothing_slow():
    done = recorder("--help")
    assert done.returncode == 0
    for name in (*COMMANDS, "scheduler", "query", "gateway"):
        assert f"\n  {name} " in done.stdout
    script = (
        "import sys; from services.cli.main import run; run(['--help']);"
        "heavy = {'grpc', 'pyarrow', 'numba', 'pydantic_settings', 'kfl', 'structlog'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, "scheduler", "query", "gateway", "jobs create", "jobs watch", "kfl match"],
)
def test_every_command_has_help(command):
    done = recorder(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert f"recorder {command}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["jbos"], "No such command 'jbos'. Did you mean 'jobs'"),
        (["jobs", "create"], "Missing argument 'NAME'"),
        (["jobs", "create", "x", "--duration", "0"], "--duration"),
        (["jobs", "list", "--output", "xml"], "'xml' is not one of"),
        (["ask", 'record("x")', "--nope"], "No such option: --nope"),
        (["ask", 'record("x")', "--follow", "--latest"], "leave out --latest"),
        (["ask", 'record("x")', "--query-address", "nowhere"], "write host:port"),
        (["jobs", "list", "--scheduler", "a:99999"], "write host:port"),
        (["scheduler", "--storage-limit", "much"], "--storage-limit: 'much' is not a size"),
        (["capture", "--interface", "a/b"], "'a/b' is not the name of an interface"),
        (["up", "--once"], "--once goes with --demo"),
        (["dissect", "x.pcap", "--output", "table", "-o", "x"], "leave out -o"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(arguments, says):
    done = recorder(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_nothing_at_all_shows_the_help():
    done = recorder()
    assert done.returncode == 2
    assert "Commands:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["jobs", "list", "--scheduler"], "RECORDER_SCHEDULER"),
        (["jobs", "create", "x", "--scheduler"], "recorder scheduler"),
        (["ask", 'record("x")', "--query-address"], "RECORDER_QUERY"),
        (["export", 'record("x")', "-o", "-", "--query-address"], "recorder query"),
        (["import", "x.pcap", "--record", "x", "--scheduler"], "recorder up"),
    ],
)
def test_a_service_that_is_not_there_is_named_with_its_address(arguments, flag, closed_port):
    done = recorder(*arguments, f"127.0.0.1:{closed_port}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"127.0.0.1:{closed_port} does not answer" in done.stderr
    assert flag in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_address_comes_from_the_variable(closed_port):
    done = recorder("jobs", "list", RECORDER_SCHEDULER=f"127.0.0.1:{closed_port}")
    assert f"127.0.0.1:{closed_port}" in done.stderr


@pytest.mark.parametrize("service", ["scheduler", "query", "gateway"])
def test_a_port_that_is_taken_is_one_line(service, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        data = () if service == "gateway" else ("--data", str(tmp_path))
        done = recorder(service, "--listen", address, "--log-level", "error", *data)
    assert done.returncode == 1
    assert f"Cannot listen on {address}: another process has that port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    lines = tmp_path / "lines"
    lines.write_text('{"protocol": {"name": "http"}}\n' * 50_000)
    with lines.open() as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", "kfl", "match", "http"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 141
    assert err == b""
