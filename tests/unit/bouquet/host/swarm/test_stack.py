"""`deploy/swarm/stack.yml` is what docker-compose.yml says, except for the listed differences."""

import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from bouquet.host.swarm.differences import DIFFERENCES, DOCUMENT, differing_paths, find_difference, with_table
from bouquet.host.swarm.stack import read_compose, render, stack
from bouquet.host.swarm.stack_names import FOLDER, SECRETS, STACK
from bouquet.settings.host import PROJECT

OVERLAYS = sorted(path for path in FOLDER.glob("*.yml") if path != STACK)
SERVICES = ("superlink", "control", "supernode")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_compose()


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return read_compose(STACK)


def test_the_committed_stack_is_what_the_compose_file_gives() -> None:
    assert STACK.read_text(encoding="utf-8") == render(), "run: python -m bouquet.host.swarm.stack"


def test_each_difference_is_intended_and_has_one_reason(compose: dict[str, Any], committed: dict[str, Any]) -> None:
    paths = list(differing_paths(compose, committed))
    assert {path: len(find_difference(path)) for path in paths} == dict.fromkeys(paths, 1)


def test_no_intended_difference_is_out_of_date(compose: dict[str, Any], committed: dict[str, Any]) -> None:
    paths = list(differing_paths(compose, committed))
    patterns = [pattern for each in DIFFERENCES for pattern in each.paths]
    assert [pattern for pattern in patterns if not any(fnmatchcase(path, pattern) for path in paths)] == []


def test_a_new_key_of_the_compose_file_is_a_difference_until_it_has_a_reason(
    compose: dict[str, Any], committed: dict[str, Any]
) -> None:
    changed = yaml.safe_load(yaml.safe_dump(compose))
    changed["services"]["supernode"]["environment"]["NEW"] = "1"
    changed["services"]["supernode"]["cap_drop"] = []
    found = set(differing_paths(changed, committed)) - set(differing_paths(compose, committed))
    assert found == {"supernode.environment.NEW", "supernode.cap_drop"}
    assert [find_difference(path) for path in found] == [[], []]


def test_a_new_setting_of_the_compose_file_reaches_the_stack(compose: dict[str, Any]) -> None:
    changed = yaml.safe_load(yaml.safe_dump(compose))
    changed["services"]["supernode"]["environment"]["NEW"] = "${NEW:-1}"
    assert stack(changed)["services"]["supernode"]["environment"]["NEW"] == "${NEW:-1}"


def test_the_table_of_differences_in_the_document_is_up_to_date() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document == with_table(document), "run: python -m bouquet.host.swarm.differences"
    assert all(each.reason in " ".join(document.split()) for each in DIFFERENCES)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_hardened(committed: dict[str, Any], name: str) -> None:
    service = committed["services"][name]
    limits = service["deploy"]["resources"]["limits"]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert {"memory", "cpus", "pids"} == set(limits)
    assert isinstance(limits["pids"], int)
    assert all("mode" not in volume for volume in service["volumes"])
    assert not {"tmpfs", "security_opt", "privileged", "cap_add", "ports", "user"} & set(service)
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_the_control_api_is_on_a_loopback_address_only(committed: dict[str, Any]) -> None:
    control = committed["services"]["control"]
    assert control["environment"]["CONTROL_PROXY_ADDRESS"].startswith("127.0.0.1:")
    assert committed["services"]["superlink"]["environment"]["CONTROL_ADDRESS"].startswith("unix:")
    assert control["networks"] == ["loopback"]


def test_only_the_superlink_sees_the_key_of_the_ca(committed: dict[str, Any]) -> None:
    readers = {
        name: {secret["source"] for secret in service.get("secrets", ())}
        for name, service in committed["services"].items()
    }
    assert readers == {"superlink": set(SECRETS), "control": set(), "supernode": {"seed", "ca_crt"}}
    for service in committed["services"].values():
        assert {secret["mode"] for secret in service.get("secrets", ())} <= {0o400}


def test_superlink_and_proxy_are_on_the_same_host(committed: dict[str, Any]) -> None:
    constraints = [committed["services"][name]["deploy"]["placement"] for name in ("superlink", "control")]
    assert constraints[0] == constraints[1] == {"constraints": ["node.labels.bouquet.superlink == true"]}


def test_the_size_is_in_no_environment_so_that_scaling_restarts_nothing(committed: dict[str, Any]) -> None:
    for service in committed["services"].values():
        assert "${SUPERNODES" not in str(service.get("environment"))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_docker_accepts_each_overlay(overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker command")
    for name in ("DATASET", "HF_CACHE", "CERTIFICATES"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("HF_TOKEN_FILE", "NODE_CONFIG_FILE"):
        monkeypatch.setenv(name, str(PROJECT / "deploy" / "compose" / "empty"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")  # the command asks no daemon
    command = ["docker", "stack", "config", "-c", str(STACK), "-c", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    merged = yaml.safe_load(done.stdout)["services"]
    for service in ("superlink", "supernode"):  # an overlay adds, and takes nothing away
        for key in ("secrets", "volumes"):
            base = {entry["target"] for entry in read_compose(STACK)["services"][service][key]}
            assert base <= {entry["target"] for entry in merged[service][key]}
