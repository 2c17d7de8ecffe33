"""Takes up what a stopped or killed writer left on disk; the writer calls it when it starts."""

from pathlib import Path
from typing import Final

import pyarrow as pa

from recordings import layout
from recordings.journal import SELF
from services.runtime.logging import logger
from services.scheduler.agentmarks import AgentMarks
from services.scheduler.deletion import remove
from services.scheduler.quota import Quota
from services.scheduler.runfiles import RunFiles

_log: Final = logger(__name__)


def recover(data: Path, quota: Quota, marks: AgentMarks) -> dict[tuple[str, int], RunFiles]:
    """Return all runs on disk, and learn how far each agent has come.

    A run that is damaged is left as it is, and counted. Raises OSError.
    """
    marks.load()
    runs: dict[tuple[str, int], RunFiles] = {}
    settled: dict[str, int] = {}
    stored: dict[str, set[int]] = {}
    for name in layout.recordings(data):
        for number in layout.runs(data, name):
            run = _load(data, name, number, quota)
            if run is None:
                continue
            runs[name, number] = run
            for agent, mark in run.manifest.agents.items():
                settled[agent] = max(settled.get(agent, 0), mark.settled)
                stored.setdefault(agent, set()).add(mark.last)
            for agent, (up_to, sequences) in run.found.items():
                settled[agent] = max(settled.get(agent, 0), up_to)
                stored.setdefault(agent, set()).update(sequences)
            run.found.clear()
    for agent in stored.keys() - {SELF}:
        marks.learn(agent, settled.get(agent, 0), stored[agent])
    return runs


def _load(data: Path, name: str, number: int, quota: Quota) -> RunFiles | None:
    folder = layout.run(data, name, number)
    try:
        return RunFiles.load(folder, quota)
    except FileNotFoundError:
        if not any(folder.glob("*.log")) and not any(folder.glob("*.parquet")):
            # The writer was killed before it had published a first manifest.
            remove(layout.root(data), folder)
            return None
        why = "its manifest is gone"
    except (ValueError, OSError, pa.ArrowException) as error:
        why = str(error)
    quota.adopt(sum(file.stat().st_size for file in folder.iterdir() if file.is_file()))
    _log.error("run left as it is", job=name, run=number, reason=why)
    return None
