"""A SuperNode on another machine: enrols it here, and builds the command that starts it there.

The command stores the node's key and the CA's certificate in a volume of the node (`bouquet.oneshot.receive_identity`
reads them from stdin) and starts the SuperNode. The key is in no image, environment, process list or log, and in no
file of this machine. Each call enrols another node.
"""

import shlex

from bouquet.contract.keys import fingerprint, make_key, public_key
from bouquet.errors import SettingError
from bouquet.settings.host import HostSettings
from bouquet.settings.node_config_settings import notation

DATA = "/var/lib/bouquet"
OWNER = "uid=49999,gid=49999,mode=0700"
# The same options as in docker-compose.yml, for every container and for a SuperNode. A test compares them.
HARDENING = (
    *("--init", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--tmpfs=/tmp:mode=1777"),
    f"--tmpfs=/run/bouquet:{OWNER}",
)
SERVICE = (
    *("--restart=unless-stopped", "--memory=2g", "--cpus=1", "--pids-limit=1024"),
    *("--sysctl=net.ipv4.tcp_retries2=5", "--log-opt=max-size=10m", "--log-opt=max-file=3"),
    "--health-cmd=python3 -I -S /opt/bouquet/lib/bouquet/contract/readiness.py",
    *("--health-interval=1s", "--health-timeout=7200s", "--health-retries=1", "--health-start-period=86400s"),
)


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


def enrol_remote_node(settings: HostSettings, root_certificate: bytes) -> tuple[str, str]:
    """Enrol a node; return the shell command that starts it on another machine, and a summary in one line.

    Args:
        settings: The fleet's settings; `partition_id` None gives the node the next partition-id.
        root_certificate: The CA's certificate.

    Raises:
        SettingError: Other machines cannot reach the Fleet API.
    """
    from bouquet.flower.control_client import ControlClient  # noqa: PLC0415  importing Flower is slow

    superlink = fleet_address(settings)
    private_key = make_key()
    with ControlClient(f"127.0.0.1:{settings.control_port}", root_certificate) as api:
        enrolled = len(api.registered())
        partition_id = settings.partition_id if settings.partition_id is not None else enrolled
        api.register(public_key(private_key))
    summary = (
        f"enrolled a SuperNode for partition-id {partition_id}, key {fingerprint(public_key(private_key))}; the "
        "command below contains that key, starts one node, and needs the image there: "
        f"docker save bouquet-supernode:{settings.tag} | ssh MACHINE docker load"
    )
    supernodes = max(settings.supernodes, partition_id + 1)
    identity = root_certificate + private_key
    node_config = notation(settings.node_config.of(partition_id))
    return start_command(settings.tag, superlink, partition_id, supernodes, identity, node_config), summary


def start_command(
    tag: str, superlink: str, partition_id: int, supernodes: int, identity: bytes, node_config: str = ""
) -> str:
    """Return the shell command that stores an identity in a volume and starts the SuperNode.

    Args:
        tag: Tag of the image.
        superlink: Address of the Fleet API.
        partition_id: The partition that the node is pinned to.
        supernodes: The fleet's size.
        identity: The CA's certificate and the node's private key, both PEM.
        node_config: Further keys of its node config, as in NODE_CONFIG.
    """
    name, image = f"bouquet-node-{partition_id}", f"bouquet-supernode:{tag}"
    volume = f"--volume={name}:{DATA}/identities"
    store = [
        *("docker", "run", "--rm", "--interactive", "--network=none", *HARDENING, volume),
        *("--entrypoint=python", image, "-P", "-m", "bouquet.oneshot.receive_identity", str(partition_id)),
    ]
    environment = {
        "SUPERLINK": superlink,
        "PARTITION_ID": str(partition_id),
        "SUPERNODES": str(supernodes),
        "BOUQUET_DATASET_FALLBACK": "/opt/bouquet/data/cifar10-sample",
        "BOUQUET_CACHE_DIR": f"{DATA}/cache",
        **({"NODE_CONFIG": node_config} if node_config else {}),
    }
    start = [
        *("docker", "run", "--detach", f"--name={name}", *HARDENING, *SERVICE, f"{volume}:ro"),
        *(f"--tmpfs={DATA}/leases:{OWNER}", f"--volume={name}-cache:{DATA}/cache"),
        *(f"--env={key}={value}" for key, value in environment.items()),
        image,
    ]
    return f"{shlex.join(store)} <<'IDENTITY' && {shlex.join(start)}\n{identity.decode().strip()}\nIDENTITY"
