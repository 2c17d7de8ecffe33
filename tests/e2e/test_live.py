"""Live traffic: calls on a wire, and people who watch, go away, and are cut off."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.network import Network, end, wait_until
from tests.e2e.services import ANSWER_SECONDS, ROOT, Recorder, environment, path_of

pytestmark = [pytest.mark.root, pytest.mark.debian]


class Viewer:
    """`recorder ask --follow`; what it writes is read as it comes."""

    def __init__(self, recorder: Recorder, kfl: str) -> None:
        self.log = recorder.folder / f"viewer-{id(self)}.jsonl"
        self.said_log = self.log.with_suffix(".txt")
        with self.log.open("wb") as out, self.said_log.open("wb") as said:
            self.child = subprocess.Popen(
                recorder.command("ask", kfl, "--follow", "--output", "json"),
                cwd=ROOT,
                env=environment(recorder),
                stdout=out,
                stderr=said,
            )
        # It says how the backlog stands, and is a viewer from then on.
        wait_until(lambda: "entries of" in self.said, ANSWER_SECONDS, lambda: self.said)

    @property
    def said(self) -> str:
        return self.said_log.read_text()

    @property
    def paths(self) -> list[str]:
        lines = self.log.read_text().splitlines(keepends=True)
        return [path_of(json.loads(line)) for line in lines if line.endswith("\n")]

    def wait_for(self, path: str) -> None:
        wait_until(lambda: path in self.paths, ANSWER_SECONDS, lambda: f"{path} in {self.paths}")

    def stop(self) -> None:
        end(self.child)


def is_watching(recorder: Recorder) -> bool:
    """Whether the agent's last word about live traffic is that it began."""
    lines = [line for line in recorder.agent.text.splitlines() if '"~live"' in line]
    return bool(lines) and '"run started"' in lines[-1]


@pytest.fixture
def viewers(network: Network, recorder: Recorder) -> Iterator[Callable[[str], Viewer]]:
    """A recorder of which all parts run; returns what makes viewers of it."""
    recorder.start_scheduler()
    recorder.start_query("--live-linger", "1")
    recorder.start_agent(network.interface)
    made: list[Viewer] = []

    def view(kfl: str) -> Viewer:
        made.append(Viewer(recorder, kfl))
        wait_until(lambda: is_watching(recorder), ANSWER_SECONDS, lambda: recorder.agent.text)
        return made[-1]

    yield view
    for viewer in made:
        viewer.stop()


def test_a_viewer_comes_and_sees_and_goes_and_agents_stop(
    network: Network, recorder: Recorder, viewers: Callable[[str], Viewer]
) -> None:
    network.curl("/broken/nobody")
    viewer = viewers("response.status == 500")
    network.curl("/ok/1", "/broken/1", "/broken/2")
    viewer.wait_for("/broken/2")
    assert viewer.paths == ["/broken/1", "/broken/2"]
    # Only what is watched was kept, for everybody who asks.
    assert sorted(map(path_of, recorder.ask("http"))) == ["/broken/1", "/broken/2"]
    assert {entry["record"] for entry in recorder.ask("http")} == {""}
    viewer.stop()
    wait_until(lambda: not is_watching(recorder), ANSWER_SECONDS, lambda: recorder.agent.text)
    assert not list(recorder.data.glob("recordings/*"))


def test_a_mixed_statement_has_the_recording_and_what_comes(
    network: Network, recorder: Recorder, viewers: Callable[[str], Viewer]
) -> None:
    recorder.record("a", "response.status == 500")
    network.curl("/broken/before", "/ok/with-it")
    recorder.wait_for('record("a")', 2)
    statement = '(record("a") and http) or response.status == 404'
    viewer = viewers(statement)
    assert sorted(viewer.paths) == ["/broken/before", "/ok/with-it"]
    network.curl("/missing/live")
    network.curl("/broken/recorded")
    viewer.wait_for("/missing/live")
    viewer.wait_for("/broken/recorded")
    wanted = ["/broken/before", "/broken/recorded", "/missing/live", "/ok/with-it"]
    assert sorted(viewer.paths) == wanted
    assert sorted(map(path_of, recorder.ask(statement))) == wanted


def test_an_agent_and_a_scheduler_that_are_killed_are_told_and_it_goes_on(
    network: Network, recorder: Recorder, viewers: Callable[[str], Viewer]
) -> None:
    viewer = viewers("http")
    network.curl("/ok/1")
    viewer.wait_for("/ok/1")
    recorder.agent.kill()
    wait_until(lambda: "is gone" in viewer.said, ANSWER_SECONDS, lambda: viewer.said)
    recorder.start_agent(network.interface)
    wait_until(lambda: is_watching(recorder), ANSWER_SECONDS, lambda: recorder.agent.text)
    wait_until(lambda: "an agent is back" in viewer.said, ANSWER_SECONDS, lambda: viewer.said)
    network.curl("/ok/2")
    viewer.wait_for("/ok/2")
    recorder.scheduler.kill()
    wait_until(lambda: "sends no live traffic" in viewer.said, ANSWER_SECONDS, lambda: viewer.said)
    wait_until(lambda: not is_watching(recorder), ANSWER_SECONDS, lambda: recorder.agent.text)
    recorder.start_scheduler()
    wait_until(lambda: is_watching(recorder), ANSWER_SECONDS, lambda: recorder.agent.text)
    network.curl("/ok/3")
    viewer.wait_for("/ok/3")
    assert viewer.paths == ["/ok/1", "/ok/2", "/ok/3"]


def test_a_query_service_that_is_killed_leaves_no_agent_watching(
    network: Network, recorder: Recorder, viewers: Callable[[str], Viewer]
) -> None:
    viewer = viewers("http")
    recorder.query.kill()
    assert viewer.child.wait(ANSWER_SECONDS) != 0
    wait_until(lambda: not is_watching(recorder), ANSWER_SECONDS, lambda: recorder.agent.text)
    recorder.start_query()
    again = viewers("http")
    network.curl("/ok/again")
    again.wait_for("/ok/again")
