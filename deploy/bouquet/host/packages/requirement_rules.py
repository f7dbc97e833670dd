"""What an app gets in place of what it asks for: our Flower, and the build of a framework that fits CPU or GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FLOWER = "flwr"
SIMULATION = "simulation"
"""Flower's extra with Ray, which only its simulation uses."""


@dataclass(frozen=True)
class Framework:
    """A framework whose builds for CPU and GPUs are different packages, or different extras, on PyPI.

    Attributes:
        names: Its packages on PyPI. Each of them stands for the framework.
        cpu: Package and marker of each build for the CPU.
        gpu: The package of its build for GPUs.
        gpu_extra: The extra that adds CUDA to it.
        gpu_extras: The start of all extras that add CUDA.
    """

    names: tuple[str, ...]
    cpu: tuple[tuple[str, str], ...]
    gpu: str
    gpu_extra: str
    gpu_extras: tuple[str, ...]


# Not torch: PyPI's build for Linux has CUDA, and UV_TORCH_BACKEND=cpu chooses the one for the CPU.
FRAMEWORKS = (
    Framework(
        names=("tensorflow", "tensorflow-cpu"),
        cpu=(("tensorflow-cpu", "platform_machine == 'x86_64'"), ("tensorflow", "platform_machine != 'x86_64'")),
        gpu="tensorflow",
        gpu_extra="and-cuda",
        gpu_extras=("and-cuda",),
    ),
    Framework(names=("jax",), cpu=(("jax", ""),), gpu="jax", gpu_extra="cuda12", gpu_extras=("cuda",)),
)


def adapt(dependencies: Iterable[Requirement], flower: Requirement, *, gpus: bool) -> list[Requirement]:
    """Return the requirements that an app's dependencies become on a fleet.

    Args:
        dependencies: What the app asks for.
        flower: The fleet's Flower, such as `flwr==1.34.0`.
        gpus: Whether the nodes compute on GPUs.
    """
    return [adapted for each in dependencies for adapted in _adapt(each, flower, gpus=gpus)]


def overrides(adapted: Iterable[Requirement], flower: Requirement) -> list[Requirement]:
    """Return what holds for requirements of packages, too: an app has one Flower, and one build of a framework."""
    names = {name for framework in FRAMEWORKS for name in framework.names}
    return [flower, *(each for each in adapted if canonicalize_name(each.name) in names)]


def _adapt(requirement: Requirement, flower: Requirement, *, gpus: bool) -> Iterator[Requirement]:
    name = canonicalize_name(requirement.name)
    if name == FLOWER:
        yield _changed(requirement, extras=requirement.extras - {SIMULATION}, like=flower)
        return
    framework = next((each for each in FRAMEWORKS if name in each.names), None)
    if framework is None or requirement.url:
        yield requirement
        return
    with_cuda = {extra for extra in requirement.extras if extra.startswith(framework.gpu_extras)}
    if gpus:
        extras = requirement.extras | (with_cuda or {framework.gpu_extra})
        yield _changed(requirement, name=framework.gpu, extras=extras)
        return
    for package, marker in framework.cpu:
        yield _changed(requirement, name=package, extras=requirement.extras - with_cuda, marker=marker)


def _changed(
    requirement: Requirement,
    *,
    name: str = "",
    extras: Iterable[str] = (),
    marker: str = "",
    like: Requirement | None = None,
) -> Requirement:
    """Return a requirement with another name and extras, an additional marker, and the version of `like`."""
    changed = Requirement(str(requirement))
    changed.name = name or requirement.name
    changed.extras = set(extras)
    if like is not None:
        changed.specifier, changed.url = like.specifier, like.url
    if marker:
        changed.marker = Marker(f"({requirement.marker}) and {marker}" if requirement.marker else marker)
    return changed
