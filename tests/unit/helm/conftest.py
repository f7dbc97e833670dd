"""The chart as `helm template` renders it, for eight sets of values."""

import importlib.util
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes_tools import kubernetes_tool

CHART = Path(__file__).parents[3] / "deploy" / "helm" / "bouquet"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))

Manifest = dict[str, Any]


class Chart:
    """The chart, and the `helm` that renders it."""

    def __init__(self, helm: Path, folder: Path = CHART) -> None:
        self._helm = helm
        self.folder = folder

    def at(self, folder: Path) -> "Chart":
        """Return another chart for the same `helm`."""
        return Chart(self._helm, folder)

    def helm(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of `helm`."""
        return subprocess.run([self._helm, *arguments], capture_output=True, text=True)

    def try_render(self, values: str, *sets: str) -> "subprocess.CompletedProcess[str]":
        """Render the chart with a set of values from this folder, and changes to it."""
        file = Path(__file__).parent / "values" / f"{values}.yaml"
        changes = [word for each in sets for word in ("--set-json", each)]
        release = ("fleet", str(self.folder), "--namespace", "fleets", "--values", str(file))
        return self.helm("template", *release, *changes)

    @cache  # noqa: B019  one object a session
    def render(self, values: str, *sets: str) -> list[Manifest]:
        """Return the manifests of `try_render`, which must succeed."""
        done = self.try_render(values, *sets)
        assert done.returncode == 0, done.stderr
        return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]

    def one(self, kind: str, name: str, values: str, *sets: str) -> Manifest:
        """Return the manifest of a kind whose name ends so."""
        found = [m for m in self.render(values, *sets) if m["kind"] == kind and m["metadata"]["name"].endswith(name)]
        assert len(found) == 1, [m["metadata"]["name"] for m in self.render(values, *sets) if m["kind"] == kind]
        return found[0]


@pytest.fixture(scope="session")
def chart() -> Chart:
    """The chart; a skip where there is no `helm`, in CI a failure."""
    return Chart(kubernetes_tool("helm"))


@pytest.fixture(params=[file.stem for file in VALUES])
def values(request: pytest.FixtureRequest) -> str:
    """The name of each set of values."""
    return str(request.param)


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the name and the specification of each pod that manifests create, with those of hooks and tests."""
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest["metadata"]["name"], manifest["spec"]
        elif manifest["kind"] in ("StatefulSet", "Job"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    """Return all containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"], *pod.get("ephemeralContainers", [])]


def script(name: str) -> Any:
    """Return a module of the folder `scripts`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, CHART.parents[2] / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
