"""Processes that are killed while calls are made: nothing that was acknowledged is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.e2e.network import SERVER, Network, end, wait_until
from tests.e2e.services import ANSWER_SECONDS, Recorder, Service, path_of, paths

pytestmark = [pytest.mark.root, pytest.mark.debian]

CALLER = """
import http.client, itertools, signal, sys, time
server, word = sys.argv[1:]
client = http.client.HTTPConnection(server)
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
for number in itertools.count():
    client.request("GET", f"/ok/{word}-{number}")
    client.getresponse().read()
    if number % 20 == 19:
        client.close()
    if ended:
        break
    time.sleep(0.01)
client.close()
"""


@pytest.fixture
def running(network: Network, recorder: Recorder) -> Recorder:
    """A recorder of which all parts run."""
    recorder.start_scheduler()
    recorder.start_query()
    recorder.start_agent(network.interface)
    return recorder


def call_on(network: Network, word: str) -> subprocess.Popen[bytes]:
    """Make calls, each with a path of its own, until it is told to end."""
    return network.at_client(sys.executable, "-c", CALLER, SERVER, word)


def stop_calling(network: Network, caller: subprocess.Popen[bytes], word: str) -> list[str]:
    """End the calls; return the paths that nginx served, sorted."""
    end(caller)
    assert caller.returncode == 0
    return served(network, word)


def served(network: Network, word: str) -> list[str]:
    return sorted(
        str(line["path"])
        for line in network.served()
        if str(line["path"]).startswith(f"/ok/{word}-")
    )


def stored(recorder: Recorder, name: str) -> int:
    return int(recorder.job(name)["runs"][0]["entries"])


def wait_for_all(recorder: Recorder, name: str, wanted: list[str]) -> None:
    """Wait until all of it can be asked; fails when something is there twice or is not wanted."""
    found: list[str] = []

    def is_there() -> bool:
        found[:] = paths(recorder.ask(f'record("{name}")'))
        return len(found) >= len(wanted)

    def missing() -> str:
        return f"{sorted(set(wanted) - set(found))}, in {recorder.job(name)}"

    wait_until(is_there, ANSWER_SECONDS, missing)
    assert found == wanted


def test_a_scheduler_that_is_killed_loses_nothing(network: Network, running: Recorder) -> None:
    running.record("x", "http")
    caller = call_on(network, "a")
    wait_until(lambda: stored(running, "x") >= 20, ANSWER_SECONDS, "the first calls")
    for _ in range(2):
        acknowledged = running.ask('record("x")')
        running.scheduler.kill()
        # The query service reads the files, so it answers while the scheduler is away.
        assert paths(running.ask('record("x")'))[:1] == paths(acknowledged)[:1]
        away = len(served(network, "a"))
        wait_until(lambda n=away: len(served(network, "a")) > n + 50, 60, "calls meanwhile")
        running.start_scheduler()
        again = Counter(map(path_of, running.ask('record("x")')))
        assert not Counter(map(path_of, acknowledged)) - again
        before = stored(running, "x")
        wait_until(
            lambda n=before: stored(running, "x") > n + 50, ANSWER_SECONDS, "the agent goes on"
        )
    wanted = stop_calling(network, caller, "a")
    wait_for_all(running, "x", wanted)
    [run] = running.stop_job("x")["runs"]
    assert (run["state"], run["entries"], run["lost_packets"]) == ("stopped", len(wanted), 0)
    assert running.agent.child.poll() is None
    wait_for_all(running, "x", wanted)


def test_an_agent_that_is_killed_is_told(network: Network, running: Recorder) -> None:
    running.record("x", "http")
    caller = call_on(network, "b")
    wait_until(lambda: stored(running, "x") >= 20, ANSWER_SECONDS, "the first calls")
    running.agent.kill()
    acknowledged = Counter(map(path_of, running.ask('record("x")')))
    running.start_agent(network.interface)
    running.agent.wait_for('"run started"')
    moment = len(served(network, "b"))
    wait_until(lambda: len(served(network, "b")) > moment + 50, 60, "calls meanwhile")
    wanted = stop_calling(network, caller, "b")
    last = wanted and max(wanted, key=lambda path: int(path.rpartition("-")[2]))
    running.wait_for(f'record("x") and request.path == "{last}"', 1)
    job = running.stop_job("x")
    found = Counter(map(path_of, running.ask('record("x")')))
    assert not acknowledged - found, "what was stored is lost"
    assert max(found.values()) == 1
    assert set(found) <= set(wanted)
    told = running.say("ask", 'record("x") and request.path == "/"').said
    assert "agent restart" in told, (told, job)
    assert "node-1" in told


def test_a_query_service_that_is_killed_answers_the_same(
    network: Network, running: Recorder
) -> None:
    running.record("x", "http or dns")
    network.curl(*(f"/ok/c-{number}" for number in range(5)), "/large/c")
    network.dig("c.web.shop.test")
    before = running.wait_for('record("x")', 7)
    running.query.kill()
    refused = running.run("ask", 'record("x")')
    assert refused.code == 1
    assert "does not answer" in refused.said
    assert len(refused.said.splitlines()) == 1
    running.start_query()
    assert running.ask('record("x")') == before


def test_an_agent_that_is_told_to_end_delivers_what_it_has_seen(
    network: Network, running: Recorder
) -> None:
    running.record("x", "http")
    caller = call_on(network, "d")
    wait_until(lambda: stored(running, "x") >= 20, ANSWER_SECONDS, "the first calls")
    sure = served(network, "d")
    begin = time.monotonic()
    running.agent.child.send_signal(signal.SIGTERM)
    running.agent.child.wait(60)
    print(f"\ndrained in {time.monotonic() - begin:.2f} s")
    assert running.agent.child.returncode == 0
    wanted = stop_calling(network, caller, "d")
    found = Counter(map(path_of, running.ask('record("x")')))
    assert max(found.values()) == 1
    assert set(found) <= set(wanted)
    assert set(sure) <= set(found), sorted(set(sure) - set(found))
    # It was the only one: a stopped run need not wait for it.
    assert running.stop_job("x")["runs"][0]["entries"] == len(found)


def test_an_agent_that_stands_still_for_a_second_misses_nothing(
    network: Network, running: Recorder
) -> None:
    running.record("x", "http")
    caller = call_on(network, "f")
    wait_until(lambda: stored(running, "x") >= 20, ANSWER_SECONDS, "the first calls")
    running.agent.child.send_signal(signal.SIGSTOP)
    time.sleep(1)
    running.agent.child.send_signal(signal.SIGCONT)
    wait_for_all(running, "x", stop_calling(network, caller, "f"))
    assert running.stop_job("x")["runs"][0]["lost_packets"] == 0


def test_a_scheduler_that_is_told_to_end_leaves_the_agent_waiting(
    network: Network, running: Recorder
) -> None:
    running.record("x", "http")
    caller = call_on(network, "e")
    wait_until(lambda: stored(running, "x") >= 20, ANSWER_SECONDS, "the first calls")
    assert running.scheduler.stop() == 0
    count = len(served(network, "e"))
    wait_until(lambda: len(served(network, "e")) > count + 50, 60, "calls meanwhile")
    service: Service = running.start_scheduler()
    wait_for_all(running, "x", stop_calling(network, caller, "e"))
    assert service.child.poll() is None
