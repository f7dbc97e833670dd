"""The entry points of containers: each loads only its own settings, and no package that reads its environment early."""

import subprocess
import sys

import pytest

NODE = {"env", "executor_settings", "gpu_settings", "node", "node_config_settings"}
"""The share of a GPU depends on the executor's number of workers."""
SUPERLINK = {"env", "run_settings", "superlink"}
"""Runs inherit its environment, so it refuses their settings if they are impossible."""


def loaded(module: str) -> set[str]:
    """The modules that a new process has after importing an entry point."""
    code = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-P", "-c", code], text=True).split())


@pytest.mark.parametrize(
    ("module", "settings"),
    [
        ("bouquet.node.__main__", NODE),
        ("bouquet.superlink.__main__", SUPERLINK),
        ("bouquet.oneshot.certificates", {"env", "oneshot"}),
        ("bouquet.oneshot.enrol", {"env", "oneshot"}),
        ("bouquet.oneshot.receive_identity", {"env"}),
    ],
)
def test_a_process_loads_only_its_own_settings_and_nothing_of_the_host_command(module: str, settings: set[str]) -> None:
    modules = loaded(module)
    assert {name for name in modules if name.startswith("bouquet.settings.")} == {
        f"bouquet.settings.{name}" for name in settings
    }
    assert not [name for name in modules if f"{name}.".startswith("bouquet.host.")]


@pytest.mark.parametrize("module", ["bouquet.node.__main__", "bouquet.superlink.__main__"])
def test_an_entry_point_leaves_flower_grpc_and_tensorflow_to_the_serving_process(module: str) -> None:
    packages = {name.partition(".")[0] for name in loaded(module)}
    assert packages.isdisjoint({"flwr", "grpc", "tensorflow", "keras"})
