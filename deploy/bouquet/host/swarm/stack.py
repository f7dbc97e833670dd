"""Writes `deploy/swarm/stack.yml` from docker-compose.yml: `python -m bouquet.host.swarm.stack`.

A developer runs it after a change of docker-compose.yml; a test checks that the committed file is up to date. What
differs from docker-compose.yml, and why, is in `bouquet.host.swarm.differences`.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from bouquet.files import write_if_changed
from bouquet.host.swarm.stack_names import (
    IDENTITY_FOLDER,
    LEASE_FOLDER,
    RUN_FOLDER,
    SECRETS,
    SERVER_FOLDER,
    STACK,
    SUPERLINK_LABEL,
    SUPERNODE_LABEL,
)
from bouquet.settings.host import PROJECT

COMPOSE = PROJECT / "docker-compose.yml"
HEADER = """\
# One SuperLink and SUPERNODES SuperNodes on the hosts of a Docker Swarm (docs/swarm.md).
# Generated from docker-compose.yml by `python -m bouquet.host.swarm.stack`: do not edit. What differs from
# docker-compose.yml, and why: docs/engines.md. Settings: .env.example; Swarm does not read .env, `bouquet` does.
"""
UID = "49999"
"""The user of the containers, and its group."""
LIBRARY = "/var/lib/bouquet"
SOCKET_FOLDER = f"{LIBRARY}/control"
SOCKET = f"{SOCKET_FOLDER}/control.sock"
NAME = "${COMPOSE_PROJECT_NAME:-bouquet}"
"""The stack's name, as far as the file needs it."""
SIZE_LABEL = "bouquet.supernodes"
"""The label of the SuperLink's service with the number of SuperNodes."""
ONE_SHOTS = ("certificates", "setup", "ready", "submit")

Mapping = dict[str, Any]


class _Octal(int):
    """A file mode, which is written with a leading 0."""


def stack(compose: Mapping) -> Mapping:
    """Return the stack file's content.

    Args:
        compose: The content of docker-compose.yml.
    """
    services = compose["services"]
    return {
        "version": "3.9",  # Docker 20.10 wants a number; the first one with limits on pids
        "services": {
            "superlink": _superlink(services["superlink"]),
            "control": _control(services["superlink"]),
            "supernode": _supernode(services["supernode"]),
        },
        "networks": {
            "fleet": {"driver": "overlay", "internal": True},
            "egress": {"driver": "overlay"},
            "loopback": {"external": True, "name": "host"},
        },
        "secrets": {name: {"external": True, "name": f"{NAME}_{name}"} for name in SECRETS},
        "volumes": {
            "state": None,
            "results": None,
            "cache": None,
            "control": {
                "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": f"uid={UID},gid={UID},mode=0700,size=64k"}
            },
        },
    }


def _superlink(service: Mapping) -> Mapping:
    environment = _environment(service) | {
        "FLEET_BIND": "0.0.0.0",  # noqa: S104  the overlay network; the SuperLink refuses INSECURE then
        "CONTROL_ADDRESS": f"unix:{SOCKET}",
        "SUPERNODES": f'{{{{index .Service.Labels "{SIZE_LABEL}"}}}}',
        "SUPERLINK_NAMES": "${SUPERLINK_NAMES:-}",
        "BOUQUET_ISSUE_CERTIFICATE": "1",
        "BOUQUET_SERVER_DIR": SERVER_FOLDER,
        "BOUQUET_RUN_DIR": RUN_FOLDER,
    }
    return _service(service) | {
        "hostname": "superlink",
        "environment": environment,
        "networks": ["fleet", "egress"],
        "secrets": [
            _secret("seed"),
            _secret("ca_key", f"{LIBRARY}/authority/ca.key"),
            _secret("ca_crt", f"{LIBRARY}/authority/ca.crt"),
        ],
        "volumes": [
            *map(_tmpfs, ("/tmp", RUN_FOLDER, SERVER_FOLDER)),  # noqa: S108
            *_kept(service, ("state", "results", "cache")),
            {"type": "volume", "source": "control", "target": SOCKET_FOLDER},
        ],
        "deploy": {
            "labels": {SIZE_LABEL: "${SUPERNODES:-10}"},
            **_on_superlinks_host(),
            **_deploy(service, failure_action="pause"),
        },
    }


def _control(superlink: Mapping) -> Mapping:
    """Return the service that passes connections on the host's loopback on to the SuperLink's socket."""
    kept = ("init", "stop_grace_period", "read_only", "cap_drop", "logging")
    return {
        "image": _image(superlink),
        **{name: superlink[name] for name in kept},
        "entrypoint": ["python", "-P", "-m", "bouquet.superlink.control_proxy"],
        "environment": {
            "CONTROL_PROXY_ADDRESS": "127.0.0.1:${CONTROL_PORT:-9093}",
            "CONTROL_SOCKET": SOCKET,
        },
        "networks": ["loopback"],
        "volumes": [_tmpfs("/tmp"), {"type": "volume", "source": "control", "target": SOCKET_FOLDER}],  # noqa: S108
        "deploy": {
            **_on_superlinks_host(),
            **_rules("pause"),
            "resources": {"limits": {"memory": "256m", "cpus": "1", "pids": 128}},
        },
    }


def _supernode(service: Mapping) -> Mapping:
    environment = _environment(service)
    del environment["PARTITION_ID"]
    return _service(service) | {
        "hostname": "supernode-{{.Task.Slot}}",
        "environment": environment
        | {
            "BOUQUET_CA_FILE": "/run/secrets/ca.crt",
            "BOUQUET_RUN_DIR": RUN_FOLDER,
            "BOUQUET_IDENTITY_DIR": IDENTITY_FOLDER,
            "BOUQUET_LEASE_DIR": LEASE_FOLDER,
        },
        "networks": service["networks"],
        "sysctls": service["sysctls"],
        "secrets": [_secret("seed"), _secret("ca_crt", "ca.crt")],
        "volumes": [
            *map(_tmpfs, ("/tmp", RUN_FOLDER, IDENTITY_FOLDER, LEASE_FOLDER)),  # noqa: S108
            *_kept(service, ("cache",)),
        ],
        "deploy": {
            "replicas": service["deploy"]["replicas"],
            "placement": {"constraints": [f"node.labels.{SUPERNODE_LABEL} != false"]},
            **_deploy(service, failure_action="rollback"),
        },
    }


def _service(service: Mapping) -> Mapping:
    """Return what a service of the stack has in common with its service in docker-compose.yml."""
    kept = ("init", "stop_grace_period", "read_only", "cap_drop", "logging", "healthcheck")
    return {"image": _image(service), **{name: service[name] for name in kept}}


def _image(service: Mapping) -> str:
    repository = service["image"].partition(":")[0]
    return f"${{BOUQUET_IMAGE_PREFIX:-}}{repository}:${{TAG:-bouquet}}"


def _environment(service: Mapping) -> Mapping:
    """Return the environment without what is in an overlay, or in a file that containers of one machine share."""
    left_out = ("BOUQUET_SIZE_FILE", "INSECURE")
    environment = {
        name: value
        for name, value in service["environment"].items()
        if name not in left_out and not re.fullmatch(r"\$\{\w+:\+.*\}", str(value))
    }
    return environment | {
        "HF_TOKEN_PATH": "/run/secrets/hf_token",
        "BOUQUET_SEED_FILE": "/run/secrets/seed",
    }


def _tmpfs(target: str) -> Mapping:
    return {"type": "tmpfs", "target": target}


def _kept(service: Mapping, sources: tuple[str, ...]) -> list[Mapping]:
    return [volume for volume in service["volumes"] if volume["source"] in sources]


def _secret(name: str, target: str | None = None) -> Mapping:
    return {"source": name, "target": target or name, "uid": UID, "gid": UID, "mode": _Octal(0o400)}


def _deploy(service: Mapping, failure_action: str) -> Mapping:
    limits = {
        "memory": service["mem_limit"],
        "cpus": service["cpus"],
        "pids": _default(service["pids_limit"]),
    }
    return {**_rules(failure_action), "resources": {"limits": limits}}


def _default(setting: str) -> int:
    """Return the default of a setting. `docker stack deploy` wants a literal number for `pids`."""
    return int(setting.partition(":-")[2].rstrip("}"))


def _rules(failure_action: str) -> Mapping:
    """Return how Swarm starts, restarts and updates the tasks of a service."""
    return {
        "endpoint_mode": "dnsrr",
        "restart_policy": {"condition": "any", "delay": "5s"},
        "update_config": {"parallelism": 1, "order": "stop-first", "failure_action": failure_action, "monitor": "15s"},
    }


def _on_superlinks_host() -> Mapping:
    return {"replicas": 1, "placement": {"constraints": [f"node.labels.{SUPERLINK_LABEL} == true"]}}


class _Dumper(yaml.SafeDumper):
    """Writes YAML without aliases, so that each service can be read by itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(_Octal, lambda dumper, mode: dumper.represent_scalar("tag:yaml.org,2002:int", f"0{mode:o}"))


def read_compose(path: Path = COMPOSE) -> Mapping:
    """Return the content of a Compose file or a stack file, with anchors and merge keys resolved."""
    content: Mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def render() -> str:
    """Return the text of the stack file."""
    return HEADER + yaml.dump(stack(read_compose()), Dumper=_Dumper, sort_keys=False, width=120)


if __name__ == "__main__":
    write_if_changed(STACK, render().encode())
