"""The prompt of `recorder ask`, in a real pseudo-terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

from services.cli import prompt

PATIENCE_SECONDS = 20

CONTROL = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][0-9A-B]|[=>78])")


class Terminal:
    """A `recorder` command in a terminal of 120 columns."""

    def __init__(self, arguments, state, **environment):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.master = master
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={
                **os.environ,
                "TERM": "xterm-256color",
                "XDG_STATE_HOME": str(state),
                **environment,
            },
        )
        os.close(slave)
        self.raw = ""
        self.seen = 0  # characters of the text

    @property
    def text(self):
        return CONTROL.sub("", self.raw)

    def type(self, text):
        os.write(self.master, text.encode())

    def until(self, wanted):
        """Read until `wanted` comes, after what was waited for before; return what came."""
        end = time.monotonic() + PATIENCE_SECONDS
        while wanted not in self.text[self.seen :]:
            if not self._read(end):
                raise AssertionError(f"{wanted!r} did not come, but {self.text[self.seen :]!r}")
        came = self.text[self.seen :].partition(wanted)[0] + wanted
        self.seen += len(came)
        return came

    def ended(self):
        end = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and self._read(end):
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self, end):
        ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
        try:
            data = os.read(self.master, 65536) if ready else b""
        except OSError:  # the other side is closed
            data = b""
        if b"\x1b[6n" in data:  # where is the cursor?
            os.write(self.master, b"\x1b[1;1R")
        self.raw += data.decode("utf-8", "replace")
        return bool(data)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def call(address, *more, **environment):
        opened.append(
            Terminal(["ask", *more, "--query-address", address], tmp_path / "state", **environment)
        )
        opened[-1].until("kfl>")
        return opened[-1]

    yield call
    for each in opened:
        each.close()


def test_a_statement_is_answered_and_kept_for_the_next_time(services, terminal, tmp_path):
    shown = terminal(services["query"])
    shown.type('record("')
    shown.until('"shop"')  # the name of the recording
    shown.type("\t")
    shown.until('"shop"')
    shown.type(") and http and response.status == 500\r")
    assert "STATUS" in shown.until("POST")
    shown.until("kfl>")
    shown.type("\x04")
    assert shown.ended() == 0
    history = tmp_path / "state" / "recorder" / "ask_history"
    assert 'record("shop") and http' in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600

    again = terminal(services["query"])
    again.type("\x1b[A")  # up
    again.until('record("shop")')


def test_an_error_is_shown_while_typing_and_the_prompt_stays(services, terminal):
    shown = terminal(services["query"])
    shown.type("response.status = 500")
    assert "column 17" in shown.until("is not an operator")
    assert "\x1b[0;4" in shown.raw or ";4m" in shown.raw  # underlined
    shown.type("\r")
    shown.until("^")
    shown.until("kfl>")
    shown.type("http\x03")  # Ctrl-C clears the line
    shown.until("kfl>")
    shown.type("\x04")
    assert shown.ended() == 0


def test_fields_are_offered_with_what_they_mean(closed_port, terminal):
    shown = terminal(f"127.0.0.1:{closed_port}")
    shown.type("response.sta")
    shown.until("HTTP status")
    shown.type("\x15" + 'record("x")\r')
    shown.until("does not answer")
    shown.until("kfl>")
    shown.type("\x04")
    assert shown.ended() == 0


def test_words_of_operators_are_known(closed_port, terminal):
    shown = terminal(f"127.0.0.1:{closed_port}", RECORDER_MACROS='{"mywords": "http or dns"}')
    shown.type("myw")
    shown.until("http or dns")


def test_a_history_that_cannot_be_written_is_no_hindrance(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert prompt._history().get_strings() == []
    assert "not kept" in capsys.readouterr().err


def test_problems_have_their_place():
    assert prompt.problem("http", {}) == ""
    assert prompt.problem("http and ", {}).startswith("column ")
    assert "Did you mean" in prompt.problem("response.staus == 1 and src.nme == 1", {})


def test_the_prompt_is_not_loaded_by_other_commands():
    code = (
        "import sys, services.cli.main, services.cli.ask; sys.exit('prompt_toolkit' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
