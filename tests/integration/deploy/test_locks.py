"""What images install: the versions that tests run with, and nothing that only tests need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "deploy" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

PIN = re.compile(r"^([a-z0-9.-]+)==([^ ;\\]+)((?: ;[^\\]*)?)", re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9._-]+")

SHARED = {"capture": {"pyyaml"}}
"""Tools that a service's own libraries need, too: the client of the API server reads YAML."""

AGAIN = "run make lock/images"


def pins(path: Path) -> set[tuple[str, str]]:
    return {(name, version) for name, version, _ in PIN.findall(path.read_text())}


def names(requirements: list[str]) -> set[str]:
    return {NAME.match(each)[0].lower() for each in requirements}  # type: ignore[index]


@pytest.mark.parametrize("lock", ["build", "capture", "scheduler", "query", "gateway"])
def test_an_image_has_the_versions_that_the_tests_run_with(lock: str) -> None:
    found = pins(DOCKER / f"{lock}.lock")
    assert found
    assert found <= pins(ROOT / "requirements.lock"), AGAIN
    text = (DOCKER / f"{lock}.lock").read_text()
    assert text.count("--hash=sha256:") >= len(found)


@pytest.mark.parametrize("service", ["capture", "scheduler", "query", "gateway"])
def test_a_service_has_its_own_extra_and_no_other(service: str) -> None:
    found = {name for name, _ in pins(DOCKER / f"{service}.lock")}
    extras = PROJECT["project"]["optional-dependencies"]
    assert names(PROJECT["project"]["dependencies"]) <= found, AGAIN
    assert names(extras[service]) <= found, AGAIN
    others = set().union(*(names(extras[other]) for other in extras if other != service))
    tools = names(PROJECT["dependency-groups"]["dev"])
    own = names(extras[service]) | SHARED.get(service, set())
    assert not found & ((others | tools) - own)


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((ROOT / "deploy/helm/traffic-recorder/Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == PROJECT["project"]["version"]
