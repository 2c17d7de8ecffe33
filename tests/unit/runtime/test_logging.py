import json
import logging
import subprocess
import sys

import pytest
import structlog

from services.runtime.logging import configure, logger


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


def test_before_it_is_configured_nothing_reaches_stdout():
    script = (
        "from services.runtime.logging import logger; log = logger('x');"
        "log.info('job created', name='a'); log.warning('almost full', octets=7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "event=almost full octets=7\n")


def test_json_lines_when_it_is_no_terminal(capsys):
    configure("info", "auto")
    logger("scheduler").info("job created", job="a\nb")
    logging.getLogger("library").warning("from %s", "the library")
    logger("scheduler").debug("not said")
    out, err = capsys.readouterr()
    assert out == ""
    first, second = [json.loads(line) for line in err.splitlines()]
    assert (first["event"], first["job"], first["level"]) == ("job created", "a\nb", "info")
    assert first["logger"] == "scheduler"
    assert first["timestamp"].endswith("Z")
    assert second["event"] == "from the library"


def test_an_exception_is_in_its_line(capsys):
    configure("info", "json")
    try:
        raise ValueError("why")
    except ValueError:
        logger("x").exception("failed")
    line = json.loads(capsys.readouterr().err)
    assert "ValueError: why" in line["exception"]


def test_lines_for_people(capsys):
    configure("debug", "console")
    logger("x").debug("ring is open", interface="lo")
    err = capsys.readouterr().err
    assert "ring is open" in err
    assert "interface=lo" in err
