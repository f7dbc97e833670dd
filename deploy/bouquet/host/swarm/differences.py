"""Where an engine's definition of the fleet differs from docker-compose.yml, and why.

`DIFFERENCES` is the one list: a test compares docker-compose.yml with `deploy/swarm/stack.yml` key by key against it,
and docs/engines.md shows it as a table: `python -m bouquet.host.swarm.differences` writes it there.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from bouquet.files import write_if_changed
from bouquet.settings.host import PROJECT

DOCUMENT = PROJECT / "docs" / "engines.md"
BEGIN, END = "<!-- differences: begin -->", "<!-- differences: end -->"
BY_TARGET = {"volumes": "target", "secrets": "target"}
"""Lists of a service whose entries are told apart by one of their keys."""
MISSING = object()


@dataclass(frozen=True)
class Difference:
    """One intended difference.

    Attributes:
        key: The key of docker-compose.yml, as the table shows it; empty for one that only an engine has.
        paths: Patterns (`fnmatch`) of the paths in which the Swarm stack differs; `SERVICE.KEY` or `networks.NAME`.
        swarm: What the Swarm stack has instead; `-` for nothing.
        reason: Why, in one or two sentences.
        helm: What the Helm chart has instead.
    """

    key: str
    paths: tuple[str, ...]
    swarm: str
    reason: str
    helm: str = ""


DIFFERENCES = (
    Difference(
        "`name`",
        ("version",),
        "`version`, the stack's name",
        "`docker stack deploy` names the stack, and Docker 20.10 wants a version in the file.",
        helm="release's name",
    ),
    Difference(
        "service `certificates`",
        ("certificates",),
        "secrets, the SuperLink itself",
        "A stack has no services that run once. `bouquet swarm deploy` creates the CA and a seed as secrets; the "
        "SuperLink issues its certificate at its start.",
        helm="hook Job, the SuperLink itself",
    ),
    Difference(
        "service `setup`",
        ("setup", "ready"),
        "-",
        "Nodes derive their keys from the seed, so nothing has to be enrolled. The SuperLink tells nodes the fleet's "
        "size.",
    ),
    Difference(
        "service `submit`",
        ("submit",),
        "-",
        "It is for hosts without `flwr`. In a Swarm, submit from the SuperLink's host.",
    ),
    Difference(
        "",
        ("control", "networks.loopback", "volumes.control", "*.volumes./var/lib/bouquet/control"),
        "service `control`",
        "Swarm publishes 127.0.0.1:9093 on 0.0.0.0, and clients of this port can run code on every node. So the "
        "SuperLink listens on a Unix socket, and a proxy in the host's network passes on what reaches the host's "
        "loopback.",
        helm="the pod's loopback",
    ),
    Difference(
        "`ports`",
        ("superlink.ports",),
        "`published.yml`, on request",
        "See `control`. SuperNodes in the Swarm reach the Fleet API on the overlay network; other sites need the port.",
        helm="Service, port 9092",
    ),
    Difference(
        "`image`, `pull_policy`",
        ("*.image",),
        "`image` with a prefix",
        "The prefix is the registry, if there is one. `docker stack deploy` does not know nested defaults.",
        helm="`image.registry`, `image.tag`",
    ),
    Difference(
        "`build`",
        ("*.build",),
        "`bouquet swarm images`",
        "A stack builds no images.",
        helm="`docker push`",
    ),
    Difference(
        "`depends_on`",
        ("*.depends_on",),
        "-",
        "Swarm starts services in any order. A SuperNode retries until it reaches the SuperLink.",
    ),
    Difference(
        "`security_opt`",
        ("*.security_opt",),
        "the daemon's setting",
        "A stack cannot set no-new-privileges. The daemon's `no-new-privileges: true` sets it for all containers.",
        helm="`allowPrivilegeEscalation: false`",
    ),
    Difference(
        "`tmpfs`",
        ("*.tmpfs", "*.volumes./tmp", "*.volumes./run/bouquet-task", "*.environment.BOUQUET_RUN_DIR"),
        "`volumes`, type `tmpfs`",
        "A stack ignores `tmpfs` silently. A volume of this type belongs to root, with the mode of the image's folder, "
        "or 1777 where the image has none. So it is mounted at other paths; one user runs in a container.",
        helm="`emptyDir` in memory",
    ),
    Difference(
        "`restart`",
        ("*.restart", "*.deploy.restart_policy"),
        "`deploy.restart_policy`",
        "The same, after a pause of 5 s, on any host.",
        helm="StatefulSet",
    ),
    Difference(
        "`mem_limit`, `cpus`, `pids_limit`",
        ("*.mem_limit", "*.cpus", "*.pids_limit", "*.deploy.resources"),
        "`deploy.resources.limits`",
        "The same limits. `docker stack deploy` wants a literal number for `pids`; `bouquet` replaces it.",
        helm="`resources.limits`",
    ),
    Difference(
        "",
        ("*.deploy.endpoint_mode",),
        "`endpoint_mode: dnsrr`",
        "Names resolve to tasks themselves: nothing balances load here, and connections that last for days do not "
        "depend on IPVS, which drops idle ones after 15 minutes.",
        helm="headless Service",
    ),
    Difference(
        "",
        ("*.deploy.placement", "superlink.deploy.replicas"),
        "`deploy.placement`",
        "The SuperLink's state is in volumes of one host, which a label names. Another label keeps SuperNodes off a "
        "host.",
        helm="`nodeSelector`, `affinity`, ...",
    ),
    Difference(
        "",
        ("*.deploy.update_config",),
        "`deploy.update_config`",
        "One task at a time, the old one first: two holders of one partition are impossible, and a run misses one "
        "node at a time.",
        helm="`updateStrategy`, `Parallel`",
    ),
    Difference(
        "",
        ("superlink.deploy.labels", "superlink.environment.SUPERNODES"),
        "label `bouquet.supernodes`",
        "The expected size. It is a label of the service, because a change of its environment would restart it.",
        helm="ConfigMap",
    ),
    Difference(
        "",
        ("*.hostname",),
        "`hostname`",
        "Logs and `bouquet status` name the slot, not a container's id.",
        helm="the pod's name",
    ),
    Difference(
        "`networks.control`",
        ("superlink.networks", "networks.control"),
        "`egress`",
        "No port is published, so one network is enough for outgoing connections.",
        helm="NetworkPolicy",
    ),
    Difference(
        "`networks`",
        ("networks.fleet.driver", "networks.egress"),
        "driver `overlay`",
        "Networks span hosts. They are not encrypted again: the Fleet API has TLS.",
        helm="NetworkPolicies",
    ),
    Difference(
        "volumes `server`, `identities`, `leases`",
        (
            *("volumes.authority", "volumes.server", "volumes.identities", "volumes.leases"),
            *("*.volumes./var/lib/bouquet/server", "*.volumes./var/lib/bouquet/identities"),
            *("*.volumes./var/lib/bouquet/leases", "*.volumes./run/bouquet-leases"),
            *("superlink.volumes./run/bouquet-server", "supernode.volumes./run/bouquet-identities"),
            *("superlink.environment.BOUQUET_SERVER_DIR", "supernode.environment.BOUQUET_IDENTITY_DIR"),
            "supernode.environment.BOUQUET_LEASE_DIR",
        ),
        "`tmpfs`, secrets",
        "A volume belongs to one host. Keys come from secrets and partition-ids from slots, so nothing is shared.",
        helm="`emptyDir`, Secrets, ordinal",
    ),
    Difference(
        "",
        (
            *("*.secrets.seed", "superlink.secrets./var/lib/bouquet/authority/ca.*", "supernode.secrets.ca.crt"),
            *("secrets.seed", "secrets.ca_key", "secrets.ca_crt"),
            *("*.environment.BOUQUET_SEED_FILE", "supernode.environment.BOUQUET_CA_FILE"),
            *("superlink.environment.BOUQUET_ISSUE_CERTIFICATE", "superlink.environment.SUPERLINK_NAMES"),
        ),
        "secrets `seed`, `ca_key`, `ca_crt`",
        "Nodes derive their keys from the seed. Only the SuperLink sees the CA's key.",
        helm="Secrets by the hook",
    ),
    Difference(
        "secret `hf_token`",
        ("*.secrets.hf_token", "secrets.hf_token", "*.environment.HF_TOKEN_PATH"),
        "`hf-token.yml`, on request",
        "A secret cannot be empty.",
        helm="`hub.tokenSecret`",
    ),
    Difference(
        "secrets of builds",
        ("secrets.PIP_INDEX_URL", "secrets.UV_*", "secrets.ca_bundle"),
        "-",
        "A stack builds no images.",
    ),
    Difference(
        "`DATASET`, `HF_CACHE`",
        (
            *("*.volumes./dataset", "*.volumes./hf-cache"),
            *("*.environment.BOUQUET_DATASET", "*.environment.BOUQUET_HF_CACHE"),
        ),
        "`dataset.yml`, `hf-cache.yml`",
        "The folder must exist on each host, or Swarm refuses the task. So it is mounted on request only.",
        helm="claims: `dataset`, `hub`",
    ),
    Difference(
        "`NODE_CONFIG_FILE`",
        ("supernode.volumes./node-config.toml", "supernode.environment.BOUQUET_NODE_CONFIG_FILE"),
        "`node-config.yml`, on request",
        "A Swarm config brings the file to all hosts.",
        helm="`supernode.nodeConfig`",
    ),
    Difference(
        "`BOUQUET_SIZE_FILE`",
        ("*.environment.BOUQUET_SIZE_FILE",),
        "-",
        "There is no shared volume; nodes learn the size from the SuperLink.",
    ),
    Difference(
        "`PARTITION_ID`",
        ("supernode.environment.PARTITION_ID",),
        "-",
        "It would pin all replicas to one partition. The slot decides.",
        helm="the ordinal",
    ),
    Difference(
        "`INSECURE`",
        ("*.environment.INSECURE",),
        "-",
        "It is for one machine only.",
    ),
    Difference(
        "`CONTROL_ADDRESS`",
        ("superlink.environment.CONTROL_ADDRESS",),
        "a Unix socket",
        "See `control`.",
        helm="`127.0.0.1:9093`",
    ),
    Difference(
        "`FLEET_BIND`",
        ("superlink.environment.FLEET_BIND",),
        "`0.0.0.0`",
        "Other hosts call the Fleet API. With this value the SuperLink refuses INSECURE.",
    ),
    Difference(
        "`init`",
        (),
        "the same",
        "In a pod, another process is number 1: it reaps orphans and passes on SIGTERM.",
        helm="`shareProcessNamespace`",
    ),
    Difference(
        "`healthcheck`",
        (),
        "the same",
        "Docker's probe holds for an hour. Kubernetes probes at intervals, and has another probe for a process that "
        "hangs.",
        helm="`readiness.py 0`, `readiness.py live`",
    ),
    Difference(
        "`sysctls`",
        (),
        "the same",
        "*restricted* forbids it. gRPC's own limit on connections without acknowledgements does its work.",
    ),
    Difference("`logging`", (), "the same", "The kubelet rotates logs.", helm="the kubelet"),
    Difference(
        "`stop_grace_period`",
        (),
        "the same",
        "The same under another name, and longer: a host may be busy with many pods.",
        helm="`terminationGracePeriodSeconds`",
    ),
    Difference(
        "volumes `state`, `results`, `cache`",
        (),
        "the same, on each host",
        "A claim belongs to the cluster, so the SuperLink's pod may move to another host.",
        helm="claims; `cache` by `emptyDir`",
    ),
    Difference(
        "`deploy/compose/gpu.yml`",
        (),
        "`gpu.yml`, generic resources",
        "The engine assigns devices, so that a node plans nothing.",
        helm="`supernode.gpu`",
    ),
)


def differing_paths(compose: dict[str, Any], stack: dict[str, Any]) -> Iterator[str]:
    """Yield the paths in which two definitions differ; the shortest path of what only one of them has."""

    def flat(definition: dict[str, Any]) -> dict[str, Any]:
        services = {name: _by_key(service) for name, service in definition["services"].items()}
        others = {key: value for key, value in definition.items() if key != "services" and not key.startswith("x-")}
        return {**services, **others, "name": MISSING}

    yield from _differing(flat(compose), flat(stack))


def find_difference(path: str) -> list[Difference]:
    """Return the intended differences that a path belongs to."""
    return [each for each in DIFFERENCES if any(fnmatchcase(path, pattern) for pattern in each.paths)]


def table() -> str:
    """Return the list as Markdown: a table, and the reasons by number."""
    reasons, rows = [], ["| docker-compose.yml | Swarm | Helm | why |", "| --- | --- | --- | --- |"]
    for number, each in enumerate(DIFFERENCES, 1):
        rows.append(f"| {each.key or '-'} | {each.swarm} | {each.helm or '-'} | {number} |")
        reasons.append(_wrapped(number, each.reason))
    return "\n".join([*rows, "", *reasons])


def with_table(document: str) -> str:
    """Return a document with the current table between its marks."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{table()}\n\n{END}", document, flags=re.DOTALL)


def _by_key(service: dict[str, Any]) -> dict[str, Any]:
    """Return a service whose volumes and secrets are by target, each as one value."""
    keyed = {"deploy": {}, **service}
    for name, key in BY_TARGET.items():
        if name in keyed:
            keyed[name] = {e if isinstance(e, str) else e[key]: json.dumps(e, sort_keys=True) for e in keyed[name]}
    return keyed


def _differing(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in {**ours, **theirs}:
            yield from _differing(ours.get(key, MISSING), theirs.get(key, MISSING), f"{path}.{key}" if path else key)
    elif ours != theirs:
        yield path


def _wrapped(number: int, reason: str) -> str:
    mark = f"{number}. "
    return textwrap.fill(reason, 118, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False)


if __name__ == "__main__":
    write_if_changed(DOCUMENT, with_table(DOCUMENT.read_text(encoding="utf-8")).encode())
