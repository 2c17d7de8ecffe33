"""How complete a run is: a sentence for people, and rows of the ledger, from its agents.

runs.py asks when it closes a run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from services.scheduler.jobs import AgentState, JobState, Run, RunAgent

LATE = timedelta(seconds=5)
"""An agent that joined within this time of the start, or finished within it of the end, was there:
clocks differ, and a reconnect takes as long."""

MOST_NAMED = 5
"""Agents that the sentence names of each sort; all of them are listed with the run."""

MOST_ROWS = 64
"""Rows of the ledger about agents; more would not fit into what is kept free for the ledger."""

AGENT_GONE = "agent_gone"
"""Their kind."""


def at_end(agents: Iterable[RunAgent]) -> list[RunAgent]:
    """Return the agents as they stand once their run is closed."""
    return [
        agent if agent.state is AgentState.FINISHED else replace(agent, state=AgentState.GONE)
        for agent in agents
    ]


def sentence(run: Run, to: JobState, agents: Sequence[RunAgent]) -> str:
    """Say how complete a run is that ends in state `to`; the agents are as before at_end()."""
    if not agents:
        return "No agent took part."
    done = [agent for agent in agents if agent.state is AgentState.FINISHED]
    parts = [f"{len(done)} of {_counted(len(agents))} finished"]
    if to not in (JobState.COMPLETED, JobState.STOPPED):
        parts = [f"{_counted(len(agents))} took part, and it ended before its time"]
    missing = _missing(to, agents)
    parts += _named([_what_is_missing(agent, agents, run) for agent in missing])
    early = [a for a in done if a.finish_time and a.finish_time < run.end_time - LATE]
    parts += _named(
        [f"{a.node} stopped at {_time(a.finish_time, run)}, before the end" for a in early]
    )
    late = [a for a in agents if a.join_time > run.start_time + LATE]
    parts += _named([f"{a.node} joined at {_time(a.join_time, run)}" for a in late])
    return "; ".join(parts) + "."


def losses(run: Run, to: JobState, agents: Sequence[RunAgent]) -> list[dict[str, object]]:
    """Return rows of LOSSES, of kind AGENT_GONE, for the agents whose last batch never came."""
    missing = _missing(to, agents)
    told = missing if len(missing) <= MOST_ROWS else missing[: MOST_ROWS - 1]
    rows = [_row(a.node, a, run, _what_is_missing(a, agents, run) + ".") for a in told]
    rest = missing[len(told) :]
    if rest:
        first = min(rest, key=lambda agent: agent.data_time or agent.join_time)
        rows.append(_row("", first, run, f"{len(rest)} more agents did not finish."))
    return rows


def _row(node: str, agent: RunAgent, run: Run, detail: str) -> dict[str, object]:
    start = agent.data_time or agent.join_time
    return {
        "node_name": node,
        "start_time": _ns(min(start, run.end_time)),
        "end_time": _ns(run.end_time),
        "detail": f"{detail} What it had not delivered is missing",
    }


def _missing(to: JobState, agents: Iterable[RunAgent]) -> list[RunAgent]:
    """Return those whose last batch was waited for in vain."""
    awaited = {AgentState.AWAY, AgentState.GONE}
    if to in (JobState.COMPLETED, JobState.STOPPED):
        awaited.add(AgentState.RECORDING)
    return [agent for agent in agents if agent.state in awaited]


def _what_is_missing(agent: RunAgent, agents: Iterable[RunAgent], run: Run) -> str:
    last = "it had sent no data"
    if agent.data_time:
        last = f"its last data is from {_time(agent.data_time, run)}"
    if agent.state is AgentState.RECORDING:
        return f"{agent.node} had not delivered all by the end: {last}"
    later = [a for a in agents if a.node == agent.node and a.join_time > agent.heard_time]
    if later:
        again = _time(min(a.join_time for a in later), run)
        return f"{agent.node} lost its agent, and another one began at {again}: {last}"
    return f"{agent.node} did not come back: {last}"


def _named(sentences: list[str]) -> list[str]:
    more = len(sentences) - MOST_NAMED
    return sentences if more <= 0 else [*sentences[:MOST_NAMED], f"and {more} more like this"]


def _counted(agents: int) -> str:
    return "1 agent" if agents == 1 else f"{agents} agents"


def _time(time: datetime | None, run: Run) -> str:
    assert time is not None
    return f"{time:%H:%M:%S}" if time.date() == run.end_time.date() else f"{time:%m-%d %H:%M:%S}"


def _ns(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000) * 1000
