"""SuperNodes on other machines: enrols them here, and writes what starts them there.

For Docker and Podman that is a shell command. It stores each node's key and the CA's certificate in a volume of the
node (`bouquet.oneshot.receive_identity` reads them from stdin) and starts the node. For Kubernetes it is a manifest
with a Secret. A key is in no image, environment, process list or log, and in no file of this machine. Each call enrols
other nodes, and the SuperLink gives each a partition.
"""

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bouquet.contract.fleet_service import NAME
from bouquet.contract.keys import fingerprint, make_key, public_key
from bouquet.errors import SettingError
from bouquet.host.endpoint import Endpoint
from bouquet.host.join_kubernetes import manifest
from bouquet.host.joining_node import DATA, PROBE, JoiningNode
from bouquet.settings.host import HostSettings
from bouquet.settings.node_config_settings import notation

OWNER = "uid=49999,gid=49999,mode=0700"
# The same options as in docker-compose.yml, for every container and for a SuperNode. A test compares them.
HARDENING = (
    *("--init", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--tmpfs=/tmp:mode=1777"),
    f"--tmpfs=/run/bouquet:{OWNER}",
)
LIMITS = ("--memory=2g", "--cpus=1", "--pids-limit=1024", "--sysctl=net.ipv4.tcp_retries2=5")
SERVICE = (
    *("--restart=unless-stopped", *LIMITS, "--log-opt=max-size=10m", "--log-opt=max-file=3"),
    f"--health-cmd={' '.join(PROBE)}",
    *("--health-interval=1s", "--health-timeout=7200s", "--health-retries=1", "--health-start-period=86400s"),
)
# Podman refuses uid= and gid= of a tmpfs. Its option U makes the container's user the owner.
PODMAN_HARDENING = (
    *(option for option in HARDENING if not option.endswith(OWNER)),
    *("--tmpfs=/run/bouquet:U,mode=0700", "--pull=never"),
)
# Podman has no daemon. systemd restarts containers after a reboot only with `always`, and calls a probe at intervals.
PODMAN_SERVICE = (
    *("--restart=always", *LIMITS, "--log-driver=k8s-file", "--log-opt=max-size=10m"),
    f"--health-cmd={' '.join(PROBE)} 0",
    *("--health-interval=30s", "--health-timeout=20s", "--health-retries=2", "--health-start-period=60s"),
)
ENGINES = ("docker", "podman", "kubernetes")
MAX_NODES = 100
API_SECONDS = 60.0


@dataclass(frozen=True)
class JoinOptions:
    """The command line of `bouquet join-command`.

    Attributes:
        nodes: How many nodes to enrol.
        engine: What runs them: one of `ENGINES`.
        name: Their name, with `-1`, `-2` and so on for several; None: each is named after its key.
        image: The image there; None: the one that this fleet has.
    """

    nodes: int = 1
    engine: str = "docker"
    name: str | None = None
    image: str | None = None

    def names(self) -> list[str | None]:
        """Return the name of each node.

        Raises:
            SettingError: The number or the name is invalid.
        """
        if not 1 <= self.nodes <= MAX_NODES:
            hint = f"give a number from 1 to {MAX_NODES}"
            raise SettingError("--nodes", self.nodes, "not a number of nodes for one command", hint)
        if self.name is None:
            return [None] * self.nodes
        names = [self.name] if self.nodes == 1 else [f"{self.name}-{number}" for number in range(1, self.nodes + 1)]
        check_name("--name", self.name, names[-1])
        return [*names]


def check_name(setting: str, value: str, name: str) -> None:
    """Raise a `SettingError` if a node cannot have this name."""
    if not NAME.fullmatch(name):
        hint = "use at most 40 lower-case letters, digits and -, for example: site-north"
        raise SettingError(setting, value, f"{name!r} is not a name for a node", hint)


def fleet_address(settings: HostSettings) -> str:
    """Return the address by which other machines reach the Fleet API.

    Raises:
        SettingError: Other machines cannot reach it.
    """
    if settings.insecure:
        raise SettingError(
            "INSECURE", 1, "a node on another machine needs TLS and a key", "remove INSECURE, then: make up"
        )
    if not settings.certificates.names:
        raise SettingError(
            "SUPERLINK_NAMES",
            "",
            "the name by which other machines reach this one is unknown",
            "set it when the fleet starts: SUPERLINK_NAMES=fleet.example.org FLEET_BIND=0.0.0.0 make up",
        )
    if settings.fleet_bind.startswith("127."):
        raise SettingError(
            "FLEET_BIND",
            settings.fleet_bind,
            "no other machine can reach the Fleet API at this address",
            "publish it: FLEET_BIND=0.0.0.0 make up",
        )
    name = settings.certificates.names[0]
    return f"[{name}]:{settings.fleet_port}" if ":" in name else f"{name}:{settings.fleet_port}"


def check_options(settings: HostSettings, options: JoinOptions) -> None:
    """Refuse what cannot be enrolled, before anything is.

    Raises:
        SettingError: Other machines cannot reach the Fleet API, or the options are invalid.
    """
    fleet_address(settings)
    options.names()
    if settings.partition_id is not None and options.nodes > 1:
        problem = f"{options.nodes} nodes cannot hold the same partition"
        hint = "leave it out, so that the SuperLink chooses, or enrol one node at a time"
        raise SettingError("PARTITION_ID", settings.partition_id, problem, hint)


def enrol_remote_nodes(
    settings: HostSettings, options: JoinOptions, endpoint: Endpoint, tag: str
) -> tuple[str, list[str]]:
    """Enrol nodes; return what starts them on another machine, and lines about it.

    Args:
        settings: The fleet's settings; with `partition_id`, the node holds only that one.
        options: How many nodes, with which names, for which engine.
        endpoint: The fleet's Control API.
        tag: The tag of the image that the fleet has.

    Raises:
        SettingError: Another node has one of the names.
        FleetError: The SuperLink cannot be reached.
    """
    keys = settings.node_config
    node_config = keys.for_all if settings.partition_id is None else keys.of(settings.partition_id)
    template = JoiningNode(
        name="",
        key=b"",
        root_certificate=endpoint.root_certificate or b"",
        image=options.image or f"bouquet-supernode:{tag}",
        superlink=fleet_address(settings),
        partition_id=settings.partition_id,
        node_config=notation(node_config),
    )
    nodes = []
    for name in options.names():
        key = make_key()
        nodes.append(replace(template, name=name or f"node-{digest(key)}", key=key))
    with endpoint.client() as api:
        taken = {known.name: node_id for node_id, known in api.describe(API_SECONDS).nodes.items()}
        for node in nodes:
            if node.name in taken:
                problem = f"{node.name} is the name of node {taken[node.name]}"
                raise SettingError("--name", options.name, problem, "choose another name; list them: bouquet nodes")
        lines = []
        for node in nodes:
            node_id = api.register(public_key(node.key))
            if node_id is not None:
                api.name_node(node_id, node.name, API_SECONDS)
            lines.append(f"enrolled {node.name}, node-id {node_id}, key {fingerprint(public_key(node.key))}")
    return START[options.engine](nodes), [*lines, _hint(options, nodes[0].image)]


def digest(key: bytes) -> str:
    """Return a short text that only this private key has."""
    return hashlib.sha256(public_key(key)).hexdigest()[:8]


def _hint(options: JoinOptions, image: str) -> str:
    several = options.nodes > 1
    what = f"the {'keys of these nodes' if several else 'key of this node'}"
    if options.engine == "kubernetes":
        return f"the manifest below contains {what}, and its cluster must have the image {image} (--image for another)"
    copy = f": docker save {image} | ssh MACHINE {options.engine} load" if options.image is None else f", {image}"
    starts = f"starts {options.nodes} nodes" if several else "starts one node"
    return f"the command below contains {what}, {starts}, and needs the image there{copy}"


def docker_command(nodes: Sequence[JoiningNode]) -> str:
    """Return the shell command that starts nodes with Docker."""
    return _shell_command("docker", HARDENING, SERVICE, nodes)


def podman_command(nodes: Sequence[JoiningNode]) -> str:
    """Return the shell command that starts nodes with Podman."""
    return _shell_command("podman", PODMAN_HARDENING, PODMAN_SERVICE, nodes)


def _shell_command(engine: str, hardening: Sequence[str], service: Sequence[str], nodes: Sequence[JoiningNode]) -> str:
    """Return a command that stores each node's identity in a volume and starts the node; it stops at a failure."""
    lines = []
    for node in nodes:
        container = f"bouquet-{node.name}"
        # With the key in its name: a command for another fleet cannot overwrite the identity of a node with this name.
        volume = f"--volume={container}-{digest(node.key)}:{DATA}/identities"
        store = [
            *(engine, "run", "--rm", "--interactive", "--network=none", *hardening, volume),
            *("--entrypoint=python", node.image, "-P", "-m", "bouquet.oneshot.receive_identity"),
        ]
        leases = next(option for option in hardening if "/run/bouquet:" in option).partition("/run/bouquet:")[2]
        start = [
            *(engine, "run", "--detach", f"--name={container}", *hardening, *service, f"{volume}:ro"),
            *(f"--tmpfs={DATA}/leases:{leases}", f"--volume={container}-cache:{DATA}/cache"),
            *(f"--env={key}={value}" for key, value in node.environment().items()),
            node.image,
        ]
        identity = (node.root_certificate + node.key).decode().strip()
        lines += [f"{shlex.join(store)} <<'IDENTITY'", identity, "IDENTITY", shlex.join(start)]
    return "\n".join(["( set -e", *lines, ")"])


START: dict[str, Callable[[Sequence[JoiningNode]], str]] = dict(
    zip(ENGINES, (docker_command, podman_command, manifest), strict=True)
)
