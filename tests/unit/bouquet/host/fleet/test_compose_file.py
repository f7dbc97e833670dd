"""The Compose files, the Dockerfiles, `.dockerignore` and `.env.example` agree with each other and with the code."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from bouquet.contract.readiness import HOLD_SECONDS
from bouquet.host.bootstrap import base_image
from bouquet.host.fleet.superlink_container import LIST_IN_CONTAINER
from bouquet.host.packages.package_list import LIST, SHIPPED_LISTS
from bouquet.settings.executor_settings import ExecutorSettings
from bouquet.settings.host import PROJECT, HostSettings
from bouquet.settings.node import SuperNodeSettings
from bouquet.settings.run_settings import RunSettings

DOCKERFILES = ("Dockerfile.superlink", "Dockerfile.supernode")
UID = "49999"
ROLES = ("superlink", "supernode")
ONE_SHOTS = ("certificates", "setup")
INDEXES = ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX")
"""The variables of pip and uv that name an index of packages."""
EXTRA_INDEX = "UV_EXTRA_INDEX_URL"
INTERNAL = {
    *("BOUQUET_RUN_DIR", "BOUQUET_STATE_DIR", "BOUQUET_LEASE_DIR"),
    *("BOUQUET_SIZE_FILE", "BOUQUET_PARTITION_ID", "BOUQUET_PARTITION_PINNED", "TASK_SLOT"),
    *("BOUQUET_AUTHORITY_DIR", "BOUQUET_SERVER_DIR", "BOUQUET_IDENTITY_DIR", "BOUQUET_CERTIFICATES"),
    *("BOUQUET_GPU", "BOUQUET_GPU_MEMORY_MIB", "BOUQUET_RESULTS_DIR", "BOUQUET_NODE_CONFIG_DIGEST"),
    *("BOUQUET_HF_CACHE", "BOUQUET_NODE_CONFIG_FILE", "HF_HOME", "DOCKER_RESOURCE_NVIDIA-GPU"),
}
"""Variables that the fleets set for their own processes: not settings of the user."""

OPTIONAL = (
    *("DATASET", "BASE_IMAGE", "GPU_MEMORY", "CERTIFICATES", "HF_TOKEN_FILE", "SUPERLINK_NAMES"),
    *("EXECUTOR_GROWTH", "EXECUTOR_PRELOAD", "TAG", "BOUQUET_PACKAGES", "SSL_CERT_FILE", "grpc_proxy", "HF_CACHE"),
    *("NODE_CONFIG_FILE", "BOUQUET_NODE_CONFIG_DIGEST"),
)
"""Documented as unset; the Compose file has a fallback for each."""


def text(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text("docker-compose.yml"))
    return loaded


def uncommented(name: str) -> str:
    return "\n".join(line.partition(" #")[0] for line in text(name).splitlines() if not line.startswith("#"))


def documented(*, active_only: bool = False) -> dict[str, str]:
    """Return the settings of `.env.example`; those commented out have no default."""
    pattern = r"^(\w+)=(.*)$" if active_only else r"^(?:# )?(\w+)=(.*)$"
    return dict(re.findall(pattern, text(".env.example"), re.MULTILINE))


# -- docker-compose.yml


def test_one_definition_per_role(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*ROLES, *ONE_SHOTS, "ready", "submit"}


def test_the_compose_file_runs_no_shell() -> None:
    assert "$$" not in uncommented("docker-compose.yml")
    assert not re.search(r"\b(sh|bash|CMD-SHELL)\b", uncommented("docker-compose.yml"))


def test_ports_are_on_loopback_except_for_the_fleet_api_on_request(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports == [
        "127.0.0.1:${CONTROL_PORT:-9093}:9093",
        "${FLEET_BIND:-127.0.0.1}:${FLEET_PORT:-9092}:9092",
    ]


@pytest.mark.parametrize("role", [*ROLES, *ONE_SHOTS, "submit"])
def test_containers_run_hardened(compose: dict[str, Any], role: str) -> None:
    service = compose["services"][role]
    assert service["init"] is True
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"].keys() >= {"max-size", "max-file"}
    assert service["mem_limit"] and service["cpus"] and service["pids_limit"]
    assert not any("docker.sock" in str(volume) for volume in service["volumes"])


def test_every_limit_on_cpus_can_be_turned_off_for_a_docker_that_cannot_set_it() -> None:
    services = merged(SUPERLINK_CPUS="0", SUPERNODE_CPUS="0")
    assert {name: service.get("cpus") for name, service in services.items()} == dict.fromkeys(services)
    assert merged(SUPERLINK_CPUS="1.5")["certificates"]["cpus"] == 1.5


@pytest.mark.parametrize("role", ROLES)
def test_long_running_services_restart(compose: dict[str, Any], role: str) -> None:
    assert compose["services"][role]["restart"] == "unless-stopped"


@pytest.mark.parametrize("role", ROLES)
def test_long_running_services_depend_on_nothing_that_changes_with_the_fleet_size(
    compose: dict[str, Any], role: str
) -> None:
    # Compose recreates dependants of a recreated service (seen with 2.26): growing the fleet would restart it.
    for name in compose["services"][role]["depends_on"]:
        if name in ONE_SHOTS:
            assert "SUPERNODES" not in str(compose["services"][name])


@pytest.mark.parametrize("role", ROLES)
def test_the_fleet_size_is_in_a_file_and_not_in_the_environment_of_long_running_services(
    compose: dict[str, Any], role: str
) -> None:
    environment = compose["services"][role]["environment"]
    assert "SUPERNODES" not in str(environment)
    assert environment["BOUQUET_SIZE_FILE"] == compose["services"]["setup"]["environment"]["BOUQUET_SIZE_FILE"]
    assert readers(compose, "leases") == {"setup": True, "superlink": True, "supernode": True}


@pytest.mark.parametrize("name", ONE_SHOTS)
def test_a_one_shot_keeps_its_working_directory_off_the_module_search_path(compose: dict[str, Any], name: str) -> None:
    assert compose["services"][name]["entrypoint"][:3] == ["python", "-P", "-m"]


def test_every_one_shot_is_awaited_by_its_success(compose: dict[str, Any]) -> None:
    # `docker compose up --wait` counts the exit of any other service as a failure.
    awaited = {
        name
        for service in compose["services"].values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert awaited == set(ONE_SHOTS)


def readers(compose: dict[str, Any], volume: str) -> dict[str, bool]:
    """Which services have a volume, and whether they may write to it."""
    return {
        name: not mounted.get("read_only", False)
        for name, service in compose["services"].items()
        for mounted in service.get("volumes", ())
        if mounted["source"] == volume
    }


def test_a_secret_is_mounted_only_where_it_is_used(compose: dict[str, Any]) -> None:
    assert readers(compose, "authority") == {"certificates": True}
    assert readers(compose, "server") == {"certificates": True, "superlink": False, "submit": False}
    assert readers(compose, "identities") == {"certificates": True, "setup": True, "supernode": False}


def test_no_secret_is_in_an_environment(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name in service.get("environment", ()):
            assert not re.search("TOKEN$|KEY|SECRET|PASSWORD", name)


def test_supernodes_are_not_on_the_network_of_the_control_api(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["superlink"]["environment"]["CONTROL_ADDRESS"] == "control:9093"
    assert services["superlink"]["networks"]["control"] == {"aliases": ["control"]}
    assert "control" not in services["supernode"]["networks"]
    assert "egress" not in services["superlink"]["networks"]
    assert compose["networks"]["fleet"] == {"internal": True}


def test_the_isolated_overlay_blocks_outgoing_connections_and_changes_nothing_else() -> None:
    overlay = yaml.safe_load(text("deploy/compose/isolated.yml"))
    assert overlay == {
        "networks": {
            "egress": {"internal": True},
            "control": {"driver_opts": {"com.docker.network.bridge.enable_ip_masquerade": "false"}},
        }
    }


def test_a_node_with_its_own_settings_extends_the_service_and_counts_as_one_of_the_fleet(
    compose: dict[str, Any],
) -> None:
    services = yaml.safe_load(text("deploy/compose/large-node.yml"))["services"]
    own = services["supernode-large"]
    assert own["extends"] == {"file": "docker-compose.yml", "service": "supernode"}
    assert own.keys() == {"extends", "deploy", "mem_limit", "cpus", "environment", "volumes"}
    default = int(documented(active_only=True)["SUPERNODES"])
    assert services["supernode"]["deploy"]["replicas"] + own["deploy"]["replicas"] == default


def test_supernodes_wait_for_a_healthy_superlink(compose: dict[str, Any]) -> None:
    assert compose["services"]["supernode"]["depends_on"] == {"superlink": {"condition": "service_healthy"}}


def test_dockers_timeout_is_at_least_twice_the_hold_of_a_probe(compose: dict[str, Any]) -> None:
    for service in (compose["services"][role] for role in ROLES):
        assert int(service["healthcheck"]["timeout"].removesuffix("s")) >= 2 * HOLD_SECONDS


def test_what_only_the_command_reads_is_in_no_definition_so_that_a_change_recreates_nothing(
    compose: dict[str, Any],
) -> None:
    for name in ("UP_TIMEOUT", "RUN_CONFIG", "RESULTS", "FLWR_HOME", "BOUQUET_HOME", "FLEET}"):
        assert f"${{{name}" not in json.dumps(compose), name


def test_a_missing_dataset_is_an_error_not_a_new_folder(compose: dict[str, Any]) -> None:
    for service in (compose["services"][role] for role in ROLES):
        (dataset,) = [volume for volume in service["volumes"] if volume["target"] == "/dataset"]
        assert dataset["read_only"] is True
        assert dataset["bind"]["create_host_path"] is False


def test_a_brought_cache_and_the_node_config_are_read_only_and_never_created() -> None:
    services = merged(HF_CACHE="/brought", NODE_CONFIG_FILE="/nodes.toml", NODE_CONFIG='a="$b"')
    for role, sources in (
        ("superlink", {"/hf-cache": "/brought"}),
        ("supernode", {"/node-config.toml": "/nodes.toml"}),
    ):
        mounts = {volume["target"]: volume for volume in services[role]["volumes"]}
        for target, source in {"/hf-cache": "/brought", **sources}.items():
            assert (mounts[target]["source"], mounts[target]["read_only"]) == (source, True)
            assert not mounts[target].get("bind", {}).get("create_host_path")
        assert services[role]["environment"]["BOUQUET_HF_CACHE"] == "/hf-cache"
    environment = services["supernode"]["environment"]
    assert environment["NODE_CONFIG"].replace("$$", "$") == 'a="$b"'
    assert environment["BOUQUET_NODE_CONFIG_FILE"] == "/node-config.toml"
    assert "NODE_CONFIG" not in services["superlink"]["environment"]


def test_a_changed_file_with_the_node_config_recreates_the_nodes_only() -> None:
    before, after = (merged(BOUQUET_NODE_CONFIG_DIGEST=digest) for digest in ("1", "2"))
    assert [name for name in before if before[name] != after[name]] == ["supernode"]


def test_without_a_brought_cache_and_node_config_the_nodes_are_told_so() -> None:
    for service in (merged()[role] for role in ROLES):
        assert not service["environment"]["BOUQUET_HF_CACHE"]
        assert not service["environment"].get("BOUQUET_NODE_CONFIG_FILE")


@pytest.mark.parametrize("role", [*ROLES, *ONE_SHOTS, "submit"])
def test_every_volume_is_mounted_where_the_user_may_write(compose: dict[str, Any], role: str) -> None:
    targets = [v["target"] for v in compose["services"][role]["volumes"] if v["type"] == "volume"]
    dockerfile = text(f"Dockerfile.{role if role in ROLES else 'superlink'}").replace("\\\n", "")
    made = " ".join(re.findall(r"install -d -o bouquet -g bouquet (.+)", dockerfile))
    assert set(targets) <= set(made.split())


def test_a_mirrors_url_is_a_build_secret_and_neither_an_argument_nor_in_a_container(compose: dict[str, Any]) -> None:
    indexes = {*INDEXES, EXTRA_INDEX}
    for name in indexes:
        assert compose["secrets"][name] == {"environment": name}
        assert name in documented()
    for name, service in compose["services"].items():
        assert not indexes & {*service.get("secrets", ()), *service.get("environment", ())}
        if name in ROLES:
            assert indexes < set(service["build"]["secrets"])
            assert not indexes & service["build"]["args"].keys()


def test_without_a_token_file_the_token_path_does_not_exist(compose: dict[str, Any]) -> None:
    # The empty default secret may belong to root alone, and the hub's client forgives only a missing file.
    for role in ROLES:
        assert compose["services"][role]["environment"]["HF_TOKEN_PATH"] == "/run/secrets/${HF_TOKEN_FILE:+hf_}token"
        assert compose["services"][role]["secrets"] == ["hf_token"]


# -- deploy/compose/gpu.yml

OVERLAY = "deploy/compose/gpu.yml"


def merged(**settings: str) -> dict[str, Any]:
    """Return the services as Compose merges them, which needs no daemon."""
    if shutil.which("docker") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no docker command, and CI must test the overlay")
        pytest.skip("there is no docker command")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    asked = subprocess.run(
        ["docker", "compose", "-f", "docker-compose.yml", "-f", OVERLAY, "config", "--format", "json"],
        cwd=PROJECT,
        env=environment | settings,
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0, asked.stderr
    loaded: dict[str, Any] = json.loads(asked.stdout)
    services: dict[str, Any] = loaded["services"]
    return services


@pytest.fixture(scope="module")
def with_gpus() -> dict[str, Any]:
    return merged(GPUS="0:24GiB", SUPERNODES="7")


def test_every_replica_reserves_all_gpus_and_the_superlink_none(with_gpus: dict[str, Any]) -> None:
    [device] = with_gpus["supernode"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", -1)  # all
    assert set(device["capabilities"]) == {"gpu", "compute", "utility"}
    assert "devices" not in with_gpus["superlink"].get("deploy", {}).get("resources", {}).get("reservations", {})


def test_every_replica_has_the_same_gpu_settings_to_compute_its_share_from(with_gpus: dict[str, Any]) -> None:
    environment = with_gpus["supernode"]["environment"]
    assert (environment["GPUS"], environment["GPU_MEMORY"]) == ("0:24GiB", "1/7")


def test_a_memory_size_set_by_the_user_stays_when_the_fleet_grows() -> None:
    environments = [
        merged(GPU_MEMORY="2GiB", SUPERNODES=count)["supernode"]["environment"]["GPU_MEMORY"] for count in ("7", "14")
    ]
    assert environments == ["2GiB", "2GiB"]


def test_the_gpu_overlay_builds_both_images_with_cuda_and_changes_nothing_else(with_gpus: dict[str, Any]) -> None:
    lists = {with_gpus[role]["build"]["args"]["PACKAGES"] for role in ("superlink", "supernode")}
    assert lists == {"requirements/cuda/requirements.txt"}
    assert with_gpus["supernode"]["read_only"] is True
    assert with_gpus["supernode"]["cap_drop"] == ["ALL"]
    assert with_gpus["supernode"]["deploy"]["replicas"] == 7


# -- .env.example


def test_every_setting_of_the_compose_file_is_documented_with_the_same_default(compose: dict[str, Any]) -> None:
    defaults = documented(active_only=True)
    text_of_both = uncommented("docker-compose.yml") + uncommented(OVERLAY)
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", text_of_both):
        if name not in OPTIONAL:
            assert defaults[name] == default, name
    for name in re.findall(r"\$\{(\w+)", text_of_both):
        assert name in documented() or name in INTERNAL
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert value is not None or name in documented()


def test_every_setting_that_the_commands_read_is_documented_with_the_same_default() -> None:
    names: set[str] = set()

    class Asked(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            names.add(name)
            return super().get(name, default)

    # Setting the documented defaults explicitly changes nothing.
    given = documented(active_only=True)
    assert HostSettings.read(Asked(given)) == HostSettings.read({})
    assert ExecutorSettings.read("clientapp", Asked(given)) == ExecutorSettings.read("clientapp", {})
    assert RunSettings.read(Asked(given)) == RunSettings.read({})
    assert SuperNodeSettings.read(given) == SuperNodeSettings.read({})
    assert names - INTERNAL <= documented().keys()


def test_every_documented_setting_exists() -> None:
    settings = [path.read_text(encoding="utf-8") for path in (PROJECT / "deploy/bouquet/settings").glob("*.py")]
    known = text("docker-compose.yml") + "".join(settings)
    for name in documented():
        assert re.search(rf"\b{name}\b", known), name


# -- The Dockerfiles


def common(name: str) -> list[str]:
    lines = text(name).splitlines()
    return lines[lines.index("#") : lines.index("# -- The role")]


def test_both_images_are_built_alike_so_that_they_share_their_layers() -> None:
    superlink, supernode = map(common, DOCKERFILES)
    assert superlink == supernode
    assert any(line.startswith("COPY deploy/bouquet ") for line in superlink)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_differs_between_the_images_adds_no_layer(name: str) -> None:
    role = text(name).partition("# -- The role\n")[2].replace("\\\n", "")
    assert {line.split()[0] for line in role.splitlines()} == {"LABEL", "ENTRYPOINT"}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_comes_from_the_checkout_is_made_readable_in_a_stage_of_its_own(name: str) -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", text(name), re.MULTILINE | re.DOTALL))
    assert stages["files"].rstrip().splitlines()[:3] == [
        "COPY data/cifar10-sample /files/data/cifar10-sample",
        "COPY deploy/bouquet /files/lib/bouquet",
        "RUN chmod -R u=rwX,go=rX /files",
    ]
    copies = re.findall(r"^(?:COPY|ADD) .+$", stages["runtime"], re.MULTILINE)
    assert copies and all(copy.startswith("COPY --from=files ") for copy in copies)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_packages_come_from_the_users_mirror_with_the_hashes_of_the_lock(name: str) -> None:
    runs = [run for run in re.findall(r"^RUN (.+)$", text(name).replace("\\\n", ""), re.MULTILINE) if "/uv" in run]
    pip, sync = runs
    for run, variable, install in (
        (pip, INDEXES[0], "pip install"),
        (sync, INDEXES[-1], "uv pip sync"),
    ):
        mounted = re.findall(r"--mount=type=secret,id=(\w+)", run)
        assert set(mounted) - {EXTRA_INDEX} == set(INDEXES)
        assert re.search(rf"{install} .*--require-hashes", run)
        # The last one that is set wins: the tool's own variable.
        [order] = re.findall(r"for name in ([\w ]+);", run)
        assert order.split() == [each for each in mounted if each != EXTRA_INDEX]
        assert order.split()[-1] == variable
        assert f"export {variable} " in run


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_list_is_compared_by_its_content_and_stays_in_the_image(name: str) -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", text(name), re.MULTILINE | re.DOTALL))
    assert "COPY ${PACKAGES} /packages/requirements.txt\n" in stages["packages"]
    assert "PACKAGES" not in stages["runtime"]  # the path of a list would be compared
    assert "from=packages,source=/packages/requirements.txt" in stages["runtime"]
    assert f" {LIST_IN_CONTAINER} " in stages["runtime"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_another_ca_file_is_not_taken_from_the_cache(name: str, compose: dict[str, Any]) -> None:
    assert compose["services"][name.removeprefix("Dockerfile.")]["build"]["args"]["CA_BUNDLE"] == "${SSL_CERT_FILE:-}"
    base = text(name).partition(" AS base\n")[2].partition("\nFROM ")[0]
    assert base.index("ARG CA_BUNDLE=\n") < base.index("--mount=type=secret,id=ca_bundle")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_image_runs_as_the_user_that_owns_the_tmpfs(name: str, compose: dict[str, Any]) -> None:
    assert f"\nUSER {UID}:{UID}\n" in text(name)
    for service in compose["services"].values():
        assert f"/run/bouquet:uid={UID},gid={UID},mode=0700" in service["tmpfs"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_defaults_are_those_of_the_project(name: str) -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert f"\nARG BASE_IMAGE={base_image.DEFAULT}\n" in text(name)
    assert f'licenses="{project["license"]}"' in text(name)
    assert f"\nARG PACKAGES={SHIPPED_LISTS[0].relative_to(PROJECT)}/{LIST}\n" in text(name)


def test_uv_is_pinned_by_hash_to_the_locked_version() -> None:
    locked = {package["name"]: package for package in tomllib.loads(text("uv.lock"))["package"]}["uv"]
    pinned = text("requirements/uv.txt")
    assert f"uv=={locked['version']} " in pinned
    hashes = {file["hash"] for file in [*locked["wheels"], locked["sdist"]]}
    assert set(re.findall(r"--hash=(\S+)", pinned)) == hashes


def ignored() -> list[str]:
    """The patterns of `.dockerignore`, of which the last that matches a file decides."""
    return [line for line in text(".dockerignore").splitlines() if line and not line.startswith("#")]


def copied(name: str) -> set[str]:
    """What a Dockerfile copies or binds from the build context."""
    found = re.findall(
        r"^(?:COPY|ADD) (?!--from)(?:--\S+ )*(.+) \S+$|--mount=type=bind,source=([\w./]+)", text(name), re.M
    )
    return {source for copy, bound in found for source in (copy or bound).split()}


def test_only_what_is_named_goes_into_a_build() -> None:
    lines = ignored()
    assert lines[0] == "*"
    assert {"!requirements/*/requirements.txt", "!.bouquet/packages/*.txt"} <= set(lines)  # ${PACKAGES}
    for source in copied(DOCKERFILES[0]) - {"${PACKAGES}"}:
        assert f"!{source}" in lines
        assert Path(PROJECT / source).exists()


def test_the_host_command_is_left_out_of_the_build_context() -> None:
    lines = ignored()
    excluded = lines.index("deploy/bouquet/host")
    assert [line for line in lines if line.startswith(("!deploy", "!**", "!*"))] == ["!deploy/bouquet"]
    assert lines.index("!deploy/bouquet") < excluded


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_contains_nothing_of_deploy_but_the_package(name: str) -> None:
    assert {source for source in copied(name) if source.startswith((".", "*", "deploy"))} == {"deploy/bouquet"}
