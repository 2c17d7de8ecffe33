"""The chart, rendered by Helm itself, and ways to look at what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "traffic-recorder"

NAMESPACE = "observe"

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9}

Object = dict[str, Any]


class Rendered:
    """What a release would be made of."""

    def __init__(self, files: dict[str, str]) -> None:
        self.notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
        self.objects: list[Object] = [
            found
            for path, text in files.items()
            if not path.endswith("NOTES.txt")
            for found in yaml.safe_load_all(text)
            if found
        ]

    def of_kind(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def only(self, kind: str) -> Object:
        (found,) = self.of_kind(kind)
        return found

    @property
    def agents(self) -> Object:
        return self.only("DaemonSet")

    @property
    def scheduler(self) -> Object:
        return self.only("StatefulSet")

    @property
    def containers(self) -> dict[str, Object]:
        """All containers by name."""
        pods = pod(self.agents), pod(self.scheduler)
        return {found["name"]: found for each in pods for found in each["containers"]}


def render(values: Object | None = None, release: str = "rec") -> Rendered:
    import helm_python  # the tests are skipped where it is not installed

    with helm_python.Chart.load(CHART) as chart:
        return Rendered(chart.render(values=values or {}, name=release, namespace=NAMESPACE))


def tap(**values: Any) -> Object:
    """Values under the key `tap`."""
    return {"tap": values}


def pod(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def volume(workload: Object, name: str) -> Object:
    (found,) = [each for each in pod(workload)["volumes"] if each["name"] == name]
    return dict(found)


def environment(container: Object) -> dict[str, str]:
    """The variables of a container; of one that Kubernetes fills in, the field that it is from."""
    return {
        each["name"]: each["value"]
        if "value" in each
        else each["valueFrom"]["fieldRef"]["fieldPath"]
        for each in container["env"]
    }


def octets(quantity: str) -> int:
    """What Kubernetes makes of a quantity, as far as the chart writes them."""
    unit = quantity.lstrip("0123456789")
    return int(quantity.removesuffix(unit)) * (UNITS[unit] if unit else 1)
