"""A SuperNode on another machine: both ends of the one command that `make join-command` prints.

Here the node gets a key and is enrolled. There the command keeps the key, with the CA's certificate, in a volume of
the node's own (`python -m bouquet.oneshot.receive_identity <partition-id>`, which reads them from stdin), and starts the SuperNode. So
the key is in no image, environment, process list or log, and here in no file: who prints the command again enrols
another node.
"""

import shlex

from bouquet.contract.keys import fingerprint, make_key, public_key
from bouquet.errors import SettingError
from bouquet.settings.host import HostSettings

DATA = "/var/lib/bouquet"
OWNER = "uid=49999,gid=49999,mode=0700"
# As docker-compose.yml has them for every container, and for a SuperNode (a test holds this to it).
HARDENING = (
    *("--init", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--tmpfs=/tmp:mode=1777"),
    f"--tmpfs=/run/bouquet:{OWNER}",
)
SERVICE = (
    *("--restart=unless-stopped", "--memory=2g", "--cpus=1", "--pids-limit=1024"),
    *("--sysctl=net.ipv4.tcp_retries2=5", "--log-opt=max-size=10m", "--log-opt=max-file=3"),
    "--health-cmd=python3 -I -S /opt/bouquet/lib/bouquet/contract/readiness.py",
    *("--health-interval=1s", "--health-timeout=7200s", "--health-retries=1", "--health-start-period=300s"),
)


def check(settings: HostSettings) -> str:
    """Return the address by which other machines reach the Fleet API; raise `SettingError` where they cannot."""
    if settings.insecure:
        raise SettingError("INSECURE", 1, "a node elsewhere joins by TLS and a key", "leave it out, and: make up")
    if not settings.certificates.names:
        raise SettingError(
            "SUPERLINK_NAMES",
            "",
            "the name by which the other machine reaches this one is not known",
            "give it when the fleet is started: SUPERLINK_NAMES=fleet.example.org FLEET_BIND=0.0.0.0 make up",
        )
    if settings.fleet_bind.startswith("127."):
        raise SettingError(
            "FLEET_BIND",
            settings.fleet_bind,
            "no other machine can reach the Fleet API there",
            "open it: FLEET_BIND=0.0.0.0 make up",
        )
    name = settings.certificates.names[0]
    return f"[{name}]:{settings.fleet_port}" if ":" in name else f"{name}:{settings.fleet_port}"


def command(settings: HostSettings, root_certificate: bytes) -> tuple[str, str]:
    """Enrol a node; return the command that starts it elsewhere, and what to know about it in one line."""
    from bouquet.flower.control_client import ControlApi  # noqa: PLC0415  it is Flower, which other commands need not load

    superlink = check(settings)
    private_key = make_key()
    with ControlApi(f"127.0.0.1:{settings.control_port}", root_certificate) as api:
        known = len(api.enrolled())
        partition_id = settings.partition_id if settings.partition_id is not None else known
        api.enrol(public_key(private_key))
    account = (
        f"enrolled a SuperNode for partition-id {partition_id}, key {fingerprint(public_key(private_key))}; the "
        "command below holds that key, starts one node, and needs the image there: "
        f"docker save bouquet-supernode:{settings.tag} | ssh MACHINE docker load"
    )
    supernodes = max(settings.supernodes, partition_id + 1)
    return text(settings.tag, superlink, partition_id, supernodes, root_certificate + private_key), account


def text(tag: str, superlink: str, partition_id: int, supernodes: int, identity: bytes) -> str:
    """Return the command: it keeps the identity in a volume, then starts the SuperNode."""
    name, image = f"bouquet-node-{partition_id}", f"bouquet-supernode:{tag}"
    volume = f"--volume={name}:{DATA}/identities"
    keep = [
        *("docker", "run", "--rm", "--interactive", "--network=none", *HARDENING, volume),
        *("--entrypoint=python", image, "-P", "-m", "bouquet.oneshot.receive_identity", str(partition_id)),
    ]
    environment = {
        "SUPERLINK": superlink,
        "PARTITION_ID": str(partition_id),
        "SUPERNODES": str(supernodes),
        "BOUQUET_DATASET_FALLBACK": "/opt/bouquet/data/cifar10-sample",
        "BOUQUET_CACHE_DIR": f"{DATA}/cache",
    }
    start = [
        *("docker", "run", "--detach", f"--name={name}", *HARDENING, *SERVICE, f"{volume}:ro"),
        *(f"--tmpfs={DATA}/leases:{OWNER}", f"--volume={name}-cache:{DATA}/cache"),
        *(f"--env={key}={value}" for key, value in environment.items()),
        image,
    ]
    return f"{shlex.join(keep)} <<'IDENTITY' && {shlex.join(start)}\n{identity.decode().strip()}\nIDENTITY"
