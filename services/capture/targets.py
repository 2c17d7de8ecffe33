"""Which traffic is captured at all, whatever jobs ask for: a file that may change while an agent
runs. `agent` looks at it, and narrows each statement by it.

Pods are chosen by name and namespace. What has such a pod at neither end is in no recording, and
where the kernel can tell, it does not come to the agent. As tap.regex, tap.namespaces and
tap.excludedNamespaces of Kubeshark's chart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import kfl
from services.runtime.errors import UserError
from services.runtime.logging import logger

MOST_OCTETS = 64 << 10
"""Of the file; a list of all namespaces is less."""

LOOK_SECONDS = 1.0
"""How often the file is looked at. The kubelet renews a mounted ConfigMap once a minute."""

EVERY_POD = ".*"

_log = logger(__name__)

_Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Field(max_length=500)]


class _File(BaseModel):
    """What the file can say; keys that are not there mean all."""

    model_config = ConfigDict(extra="forbid", strict=True)

    regex: str = Field(EVERY_POD, max_length=1000)
    namespaces: _Names = []
    excluded_namespaces: _Names = Field([], alias="excludedNamespaces")


@dataclass(frozen=True, slots=True)
class Targets:
    """The pods whose traffic is captured."""

    condition: str = ""
    """KFL that all of it fulfils; "" for all traffic."""

    def narrow(self, statement: str) -> str:
        """Return a statement for what fulfils it and is of these pods."""
        return f"({statement}\n) and ({self.condition})" if self.condition else statement


ALL_PODS = Targets()


def read(text: str | bytes) -> Targets:
    """Return the targets of a file. Raises ValueError with a sentence."""
    try:
        found = _File.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{where}: {first['msg']}") from None
    sides = [_of_side(side, found) for side in ("src", "dst")]
    if not all(sides):
        return ALL_PODS
    condition = " or ".join(f"({side})" for side in sides)
    try:
        kfl.compile(condition)
    except kfl.KflError as error:
        raise ValueError(f"regex: {error}") from None
    return Targets(condition)


def _of_side(side: str, found: _File) -> str:
    """Return KFL for one end; a condition that is true of a peer without names would be of all."""
    parts = []
    if found.regex not in ("", EVERY_POD):
        parts.append(f"{side}.pod.name.matches({json.dumps(found.regex, ensure_ascii=False)})")
    if found.namespaces:
        parts.append(f"{side}.namespace in {json.dumps(found.namespaces)}")
    if found.excluded_namespaces:
        parts.append(f"not ({side}.namespace in {json.dumps(found.excluded_namespaces)})")
    if parts and found.regex in ("", EVERY_POD) and not found.namespaces:
        parts.append(f'{side}.namespace != ""')
    return " and ".join(parts)


@dataclass(slots=True)
class TargetsFile:
    """The targets of this moment."""

    path: Path
    current: Targets = ALL_PODS
    _text: bytes | None = field(default=None, repr=False)
    _next_look: float = 0.0

    def open(self) -> None:
        """Read it for the first time. Raises UserError: better no capture than too much."""
        try:
            self._text = self._read()
            self.current = read(self._text)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} does not say what to capture: {error}") from None

    def look(self, now: float) -> bool:
        """Read it again when it may have changed; return whether the targets are others now."""
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        try:
            text = self._read()
            if text == self._text:
                return False
            self._text = text
            found = read(text)
        except (OSError, ValueError) as error:
            _log.error("targets stay as they were", file=str(self.path), reason=str(error))
            return False
        if found == self.current:
            return False
        _log.info("targets have changed", captured=found.condition or "everything")
        self.current = found
        return True

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            text = file.read(MOST_OCTETS + 1)
        if len(text) > MOST_OCTETS:
            raise ValueError(f"it has more than {MOST_OCTETS} octets")
        return text
