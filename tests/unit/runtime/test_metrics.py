"""The page that Prometheus reads."""

import socket
import urllib.request

import pytest

from services.runtime.metrics import Figures, Histogram, Kind, MetricsServer, Snapshot

KINDS = (
    Kind("calls_total", "Calls.", ("protocol",)),
    Kind("open", "Open now.", type="gauge"),
)


def figures(*snapshots: Snapshot) -> Figures:
    shape = Histogram("delay_seconds", "Delay.", (0.1, 1.0))
    named = {str(number): snapshot for number, snapshot in enumerate(snapshots)}
    return Figures(KINDS, [shape], "worker", lambda: named)


def page(of: Figures) -> list[str]:
    server = MetricsServer("127.0.0.1:0", of)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            return answer.read().decode().splitlines()
    finally:
        server.stop()


def test_the_page_has_every_value_of_every_process() -> None:
    delay = Histogram("delay_seconds", "Delay.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        delay.add(value)
    first = Snapshot(
        {"calls_total": {("http",): 3, ("dns",): 1}, "open": {(): 2}},
        {delay.name: (tuple(delay.counts), delay.total[0])},
    )
    lines = page(figures(first, Snapshot({"open": {(): 5}}, {})))
    assert 'recorder_calls_total{protocol="http",worker="0"} 3.0' in lines
    assert 'recorder_calls_total{protocol="dns",worker="0"} 1.0' in lines
    assert 'recorder_open{worker="1"} 5.0' in lines
    assert "# TYPE recorder_open gauge" in lines
    assert 'recorder_delay_seconds_bucket{le="0.1",worker="0"} 2.0' in lines
    assert 'recorder_delay_seconds_bucket{le="1.0",worker="0"} 3.0' in lines
    assert 'recorder_delay_seconds_count{worker="0"} 4.0' in lines
    assert 'recorder_delay_seconds_sum{worker="0"} 7.65' in lines


def test_names_of_jobs_cannot_break_the_page() -> None:
    (line,) = [
        line
        for line in page(figures(Snapshot({"calls_total": {('a"\n} 1\n',): 1}}, {})))
        if line.startswith("recorder_calls_total{")
    ]
    assert line == 'recorder_calls_total{protocol="a\\"\\n} 1\\n",worker="0"} 1.0'


def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=rf"Cannot serve metrics on {address}: .* --metrics"):
            MetricsServer(address, figures())
