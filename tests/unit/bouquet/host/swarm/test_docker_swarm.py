"""What Docker says about its Swarm, as the commands understand it; `docker` is a script of the test's."""

import json

import pytest

from bouquet.errors import FleetError, HostError
from bouquet.host.swarm import docker_swarm, host_images
from bouquet.host.swarm.docker_swarm import SwarmNode, Task
from bouquet.host.swarm.stack_secrets import ensure_secrets
from tests.unit.bouquet.conftest import Install


def line(**given: str) -> str:
    known = {
        "ID": "x1",
        "Name": "fleet_supernode.3",
        "Image": "bouquet-supernode:swarm-1",
        "Node": "host-2",
        "CurrentState": "Running 4 seconds ago",
        "Error": "",
    }
    return json.dumps(known | given)


def node(**resources: object) -> dict[str, object]:
    return {
        "ID": "n1",
        "Description": {"Hostname": "host-1", "Resources": resources},
        "Spec": {"Labels": {"bouquet.superlink": "true"}},
    }


def test_a_task_has_a_slot_a_host_and_a_state() -> None:
    task = Task.parse("fleet", line())
    assert (task.service, task.slot, task.host, task.state, task.error) == ("supernode", 3, "host-2", "running", "")


def test_a_task_that_waits_says_why() -> None:
    task = Task.parse("fleet", line(CurrentState="Pending 2 minutes ago", Error='"no suitable node"', Node=""))
    assert (task.host, task.state, task.error) == ("", "pending", "no suitable node")


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({}, 0),
        ({"GenericResources": None}, 0),
        ({"GenericResources": [{"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": f"GPU-{n}"}} for n in "ab"]}, 2),
        ({"GenericResources": [{"DiscreteResourceSpec": {"Kind": "NVIDIA-GPU", "Value": 4}}]}, 4),
        ({"GenericResources": [{"NamedResourceSpec": {"Kind": "SSD", "Value": "1"}}]}, 0),
    ],
)
def test_the_gpus_of_a_host_are_those_that_its_daemon_lists(resources: dict[str, object], gpus: int) -> None:
    found = SwarmNode.parse(node(**resources))
    assert (found.name, found.runs_superlink, found.gpus) == ("host-1", True, gpus)


def test_a_stack_that_does_not_exist_has_no_tasks(install: Install) -> None:
    install(docker="echo 'nothing found in stack: fleet' >&2; exit 1")
    assert docker_swarm.tasks("fleet") == []


def test_a_docker_that_is_no_manager_is_an_error_with_the_way_out(install: Install) -> None:
    install(docker='[ "$1" = info ] && echo false && exit; echo "This node is not a swarm manager." >&2; exit 1')
    with pytest.raises(FleetError, match="not a manager of a Swarm; .*docker swarm init"):
        docker_swarm.tasks("fleet")
    assert not docker_swarm.exists("fleet")


def test_secrets_that_exist_are_never_created_again(install: Install) -> None:
    install(docker='[ "$2" = ls ] && printf "fleet_seed\\nfleet_ca_key\\nfleet_ca_crt\\n" && exit; exit 9')
    assert ensure_secrets("fleet") == []


def test_missing_secrets_are_created_and_only_those(install: Install) -> None:
    install(docker='[ "$2" = ls ] && echo fleet_seed && exit; [ "$2" = create ] && [ -s "$4" ]')
    assert ensure_secrets("fleet") == ["fleet_ca_key", "fleet_ca_crt"]


def test_half_a_ca_is_refused_and_not_completed(install: Install) -> None:
    install(docker='[ "$2" = ls ] && printf "fleet_seed\\nfleet_ca_key\\n" && exit; exit 9')
    with pytest.raises(FleetError, match="secret fleet_ca_key exists, but fleet_ca_crt does not; .*docker secret rm"):
        ensure_secrets("fleet")


def test_a_host_that_has_the_images_is_skipped(install: Install) -> None:
    install(docker='[ "$3" = image ]')
    assert list(host_images.load_into(["ssh://a"], "swarm-1")) == ["images: ssh://a has them"]


def test_images_are_loaded_into_a_host_that_lacks_them(install: Install) -> None:
    install(
        docker='case "$1 $3" in'
        ' "-H image") echo "Error: No such image: x" >&2; exit 1;;'
        ' "-H load") read -r archive; [ "$archive" = tar ];;'
        ' "save "*) echo tar;; esac'
    )
    assert list(host_images.load_into(["ssh://a"], "swarm-1")) == ["images: loaded into ssh://a"]


@pytest.mark.parametrize(
    "script",
    [
        'echo "ssh: connect to host a port 22: Connection refused" >&2; exit 1',
        '[ "$3" = load ] && echo "no space left on device: Connection refused" >&2 && exit 1;'
        ' [ "$1" = save ] && exit; echo "No such image" >&2; exit 1',
    ],
    ids=["unreachable", "full"],
)
def test_a_host_that_cannot_take_the_images_is_named(install: Install, script: str) -> None:
    install(docker=script)
    with pytest.raises(HostError, match="^ssh://a: .*Connection refused; .*docker -H ssh://a version"):
        list(host_images.load_into(["ssh://a"], "swarm-1"))
