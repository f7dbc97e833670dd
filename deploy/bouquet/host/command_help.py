"""What `bouquet --help` and `bouquet COMMAND --help` say."""

from dataclasses import dataclass

from bouquet.errors import BouquetError, FleetError, HostError, RunError, SettingError

INTRODUCTION = """\
Run Flower Apps on a fleet of containers, or of local processes where there is no Docker.

`make COMMAND` is short for `bouquet COMMAND`; it installs the Python environment first."""

DEFAULTS = {
    "APP": "",
    "BASE_IMAGE": "",
    "BOUQUET_HOME": "",
    "CERTIFICATES": "",
    "CONTROL_PORT": "9093",
    "DATASET": "",
    "EXECUTOR_WORKERS": "2",
    "FLEET": "auto",
    "FLEET_BIND": "127.0.0.1",
    "FLEET_PORT": "9092",
    "FLWR_HOME": "",
    "GPUS": "auto",
    "GPU_MEMORY": "",
    "HF_CACHE": "",
    "HF_HUB_OFFLINE": "",
    "HF_TOKEN_FILE": "",
    "INSECURE": "0",
    "NODE_CONFIG": "",
    "NODE_CONFIG_FILE": "",
    "PARTITION_CACHE_GIB": "5",
    "PARTITION_ID": "",
    "RESULTS": "",
    "RUN_CONFIG": "",
    "SUPERLINK_NAMES": "",
    "SUPERNODES": "10",
    "SWARM_HOSTS": "",
    "SWARM_IMAGES": "",
    "SWARM_REGISTRY": "",
    "TAG": "",
    "UP_TIMEOUT": "300",
}
"""The settings that the help mentions, with their defaults; empty for a setting that is not set by default."""

MEANINGS = {
    "APP": "folder of a Flower App; `bouquet run PATH` wins over it; not set: the app in the checkout",
    "BASE_IMAGE": "image to build on; not set: python:3.11-slim-bookworm, or one built from Debian's packages",
    "BOUQUET_HOME": "lists of packages, and all of a process fleet's files; not set: .bouquet in the checkout",
    "CERTIFICATES": "folder with your own ca.crt, server.pem and server.key; not set: the fleet has its own CA",
    "CONTROL_PORT": "port of the Control API on 127.0.0.1, which flwr calls",
    "DATASET": "folder in the layout of uoft-cs/cifar10; not set: the hub, or the shipped sample",
    "EXECUTOR_WORKERS": "processes per node; they share its GPU memory",
    "FLEET": "containers, processes, swarm, or auto: containers where Docker answers",
    "FLEET_BIND": "address that the Fleet API is published on; 0.0.0.0 for nodes on other machines",
    "FLEET_PORT": "port of the Fleet API, which SuperNodes call",
    "FLWR_HOME": "Flower's folder, with the connection local-deployment; not set: ~/.flwr",
    "GPUS": "auto, none, or devices with their memory such as 0:24GiB,1:24GiB",
    "GPU_MEMORY": "GPU memory of an app's process: a size such as 2GiB, or a part such as 1/20; not set: equal parts",
    "HF_CACHE": "folder with a Hugging Face cache that was brought along, laid out as HF_HOME",
    "HF_HUB_OFFLINE": "1: never ask the dataset hub",
    "HF_TOKEN_FILE": "file with a token for the hub, for datasets that need one",
    "INSECURE": "1: no TLS and no node keys; never beyond one machine",
    "NODE_CONFIG": "keys of the node config, for all nodes: 'site=\"north\" db-port=5432'",
    "NODE_CONFIG_FILE": "TOML file with keys of the node config; a table [3] is for the node with partition-id 3",
    "PARTITION_CACHE_GIB": "GiB for decoded partitions; the longest unused are removed first; 0: no limit",
    "PARTITION_ID": "the only partition that the new node may hold; not set: the SuperLink chooses",
    "RESULTS": "folder for results; not set: results in the checkout",
    "RUN_CONFIG": "overrides of the app's run-config; --run-config wins over it",
    "SUPERLINK_NAMES": "names by which other machines reach this one; the first is in the join command",
    "SUPERNODES": "number of SuperNodes, each with one partition, 1 to 1000",
    "SWARM_HOSTS": "Docker endpoints of a Swarm's hosts, which the images are loaded into: 'ssh://a ssh://b'",
    "SWARM_IMAGES": "tag of images that a Swarm's hosts have already; not set: they are built",
    "SWARM_REGISTRY": "registry that the images are pushed to; a Swarm's hosts pull them there",
    "TAG": "tag of both images; not set: the name of the Compose project",
    "UP_TIMEOUT": "seconds that the fleet may take to become healthy",
}

EXIT_CODES: dict[type[BouquetError], str] = {
    SettingError: "a setting, or the command line, is invalid",
    HostError: "this machine lacks something that the fleet needs",
    FleetError: "the fleet did not start, or is down",
    RunError: "the run was rejected, failed or was stopped",
}


@dataclass(frozen=True)
class CommandHelp:
    """The help of one command.

    Attributes:
        summary: One line for the list of commands.
        description: What the command does and prints.
        settings: The settings that matter for it.
        example: Command lines with a comment each.
        errors: How it can fail.
    """

    summary: str
    description: str
    settings: tuple[str, ...]
    example: str
    errors: tuple[type[BouquetError], ...]

    @property
    def epilog(self) -> str:
        """The part of the help that follows the options: settings, examples, exit codes."""
        example = "\n".join(f"  {line}" for line in self.example.splitlines())
        return f"{describe_settings(self.settings)}\n\nexample:\n{example}\n\n{describe_exit_codes(self.errors)}"


def describe_settings(names: tuple[str, ...]) -> str:
    """Return a line for each setting: its name, its default and its meaning."""
    labels = {name: f"{name}={DEFAULTS[name]}" if DEFAULTS[name] else name for name in names}
    width = max(map(len, labels.values()))
    return "\n".join(
        [
            "settings (environment variables, or lines in .env; the environment wins; .env.example lists all):",
            *(f"  {label:<{width}}  {MEANINGS[name]}" for name, label in labels.items()),
        ]
    )


def describe_exit_codes(errors: tuple[type[BouquetError], ...]) -> str:
    """Return a line for each exit code: success, then that of each error."""
    lines = [f"  {error.exit_code}  {EXIT_CODES[error]}" for error in errors]
    return "\n".join(["exit codes:", "  0  success", *lines])


EPILOG = f"""\
Settings are environment variables, or lines in .env; the environment wins. .env.example lists all of them.

examples:
  bouquet doctor                                   check this machine first
  bouquet run --run-config "num-server-rounds=5"   start the fleet, run the shipped app, show the results
  bouquet run path/to/app                          run an app of yours, with its own packages
  SUPERNODES=20 bouquet up                         start a fleet of 20, or resize the running one
  bouquet down                                     stop it; results and caches stay

{describe_exit_codes((SettingError, HostError, FleetError, RunError))}"""

_ALL_FLEETS = ("FLEET", "BOUQUET_HOME")

HELP = {
    "run": CommandHelp(
        "start the fleet, run a Flower App, show its results",
        "Start the fleet as `bouquet up` does, with the packages in `dependencies` of the app's pyproject.toml. Run\n"
        "the app, and print the run's log as it arrives. Then copy the results to RESULTS/<run-id>, print tables of\n"
        "the metrics, and list the files that the app wrote. The fleet stays up. A fleet with other packages is\n"
        "replaced, unless a run is in progress on it. After Ctrl-C the run continues; a second one in 5 s stops it.",
        (
            *("APP", "RUN_CONFIG", "RESULTS", "SUPERNODES", "FLEET", "DATASET", "HF_CACHE", "HF_HUB_OFFLINE"),
            *("NODE_CONFIG", "NODE_CONFIG_FILE", "GPUS", "UP_TIMEOUT"),
        ),
        'bouquet run --run-config "num-server-rounds=5 batch-size=16"\n'
        "bouquet run path/to/app\n"
        "DATASET=/data/cifar10 SUPERNODES=4 bouquet run",
        (SettingError, HostError, FleetError, RunError),
    ),
    "up": CommandHelp(
        "start the fleet, or resize it; wait until it is healthy",
        "Start one SuperLink and SUPERNODES SuperNodes, and wait until all are healthy. On a running fleet, apply\n"
        "what has changed: with only another SUPERNODES, the nodes that stay are not restarted. Then write the\n"
        "connection local-deployment, so that `flwr run . local-deployment` finds the fleet.",
        (
            *("SUPERNODES", "FLEET", "DATASET", "UP_TIMEOUT", "CONTROL_PORT", "FLEET_PORT", "FLEET_BIND"),
            *("SUPERLINK_NAMES", "CERTIFICATES", "INSECURE", "GPUS", "GPU_MEMORY", "BASE_IMAGE", "TAG"),
            *("FLWR_HOME", "BOUQUET_HOME", "PARTITION_CACHE_GIB", "NODE_CONFIG", "NODE_CONFIG_FILE", "HF_CACHE"),
        ),
        "SUPERNODES=20 bouquet up\nFLEET=processes bouquet up",
        (SettingError, HostError, FleetError),
    ),
    "down": CommandHelp(
        "stop the fleet; results, state and caches stay",
        "Stop the SuperLink and all SuperNodes of this machine. Results, state and caches stay for the next start.\n"
        "It is no error if the fleet is down already.",
        _ALL_FLEETS,
        "bouquet down",
        (SettingError,),
    ),
    "logs": CommandHelp(
        "follow the logs of all members",
        "Print the last 100 lines of each member's log, and new lines as they appear, until Ctrl-C.",
        _ALL_FLEETS,
        "bouquet logs",
        (SettingError, FleetError),
    ),
    "status": CommandHelp(
        "show each member: state, partition, memory, current run",
        "Print a line for each SuperLink and SuperNode: its state, partition-id, node-id, age of the last heartbeat,\n"
        "memory, the run that it works on, and its device. Nodes on other machines are listed as (elsewhere).\n"
        "The last lines say how many the SuperLink counts, and what is wrong with the connection of `flwr`.",
        ("FLEET", "CONTROL_PORT", "FLWR_HOME", "BOUQUET_HOME"),
        "bouquet status",
        (SettingError, FleetError),
    ),
    "doctor": CommandHelp(
        "check what this machine lacks for the fleet, and how to fix it",
        "Check Docker and its limits, memory, CPU, disks, ports, GPUs, the files that settings name, the clock,\n"
        "certificates, the cache of partitions, and a running fleet's members.\n"
        "Print a line for each check: ok, or FAILED with the fix. Nothing is started or changed.",
        (
            *("SUPERNODES", "FLEET", "DATASET", "HF_HUB_OFFLINE", "CONTROL_PORT", "FLEET_PORT"),
            *("GPUS", "GPU_MEMORY", "FLWR_HOME", "BOUQUET_HOME", "RESULTS", "CERTIFICATES"),
        ),
        "bouquet doctor\nSUPERNODES=50 bouquet doctor",
        (SettingError, HostError),
    ),
    "gpus": CommandHelp(
        "show what each node would compute on, and why",
        "Print which nodes share which GPU, and how much memory TensorFlow may allocate in each process. A list in\n"
        "GPUS is planned even if this machine has no GPU.",
        ("GPUS", "GPU_MEMORY", "SUPERNODES", "EXECUTOR_WORKERS"),
        "bouquet gpus\nGPUS=0:24GiB,1:24GiB SUPERNODES=8 bouquet gpus",
        (SettingError, HostError),
    ),
    "results": CommandHelp(
        "copy the results of all runs out of the fleet",
        "Copy the results of all runs from the fleet to RESULTS. (`bouquet run` copies those of its own run.) The\n"
        "fleet keeps them too, and files of your own in RESULTS stay. With --kubernetes: from a fleet that the Helm\n"
        "chart has installed (docs/kubernetes.md).",
        ("RESULTS", *_ALL_FLEETS),
        "RESULTS=/tmp/results bouquet results\nbouquet results --kubernetes fleets/cifar",
        (SettingError, HostError, FleetError),
    ),
    "connection": CommandHelp(
        "write the connection local-deployment for flwr",
        "Write the connection local-deployment to FLWR_HOME/config.toml, with the fleet's CA certificate beside it.\n"
        "Everything else in the file stays. `bouquet up` does this too.\n"
        "With --kubernetes it then forwards CONTROL_PORT to the SuperLink by kubectl until Ctrl-C, also to a pod that\n"
        "replaces another (docs/kubernetes.md).",
        ("FLWR_HOME", "CONTROL_PORT", "INSECURE", *_ALL_FLEETS),
        "bouquet connection\nbouquet connection --kubernetes fleets/cifar\nflwr run . local-deployment --stream",
        (SettingError, HostError, FleetError),
    ),
    "bundle": CommandHelp(
        "write an app and all that it needs into one file",
        "Write one file with the app, its images, the list of its packages and perhaps a dataset, for a machine that\n"
        "has Docker and no network. There: tar -xf FILE and ./run in the new folder; in a checkout: bouquet run FILE\n"
        "Settings of the app, such as SUPERNODES and SUPERNODE_MEMORY, go into the bundle.",
        ("APP", "SUPERNODES", "GPUS", "BASE_IMAGE", "TAG"),
        "bouquet bundle path/to/app\nbouquet bundle path/to/app --dataset hf-cache --output /media/stick/app.tar",
        (SettingError, HostError, FleetError),
    ),
    "dataset": CommandHelp(
        "download datasets from the hub into a cache, for machines without the hub",
        "Download datasets into a Hugging Face cache: the folder of HF_CACHE, or hf-cache in the checkout. Where the\n"
        "hub does not answer, HF_CACHE makes it available to all nodes. NAME:CONFIG is one of several configurations.",
        ("HF_CACHE", "HF_TOKEN_FILE"),
        "bouquet dataset uoft-cs/cifar10\nHF_CACHE=/media/stick/cache bouquet dataset ylecun/mnist nyu-mll/glue:sst2\n"
        "HF_CACHE=/media/stick/cache bouquet run",
        (SettingError, HostError),
    ),
    "join-command": CommandHelp(
        "enrol SuperNodes for another machine, print the command that starts them",
        "Enrol new SuperNodes and print what starts them elsewhere: a command for Docker or Podman, or a manifest for\n"
        "kubectl. It contains the nodes' private keys: keep it secret. It needs the image there. Each call enrols\n"
        "other nodes. The SuperLink gives each of them a partition, in addition to those of SUPERNODES.",
        (
            *("SUPERLINK_NAMES", "FLEET_BIND", "FLEET_PORT", "CONTROL_PORT", "PARTITION_ID"),
            *("NODE_CONFIG", "NODE_CONFIG_FILE"),
        ),
        "SUPERLINK_NAMES=fleet.example.org FLEET_BIND=0.0.0.0 bouquet up\n"
        "bouquet join-command --nodes 2 --name north | ssh MACHINE sh\n"
        "bouquet join-command --engine kubernetes --image registry.example.org/supernode:1 | kubectl apply -f -",
        (SettingError, FleetError),
    ),
    "nodes": CommandHelp(
        "list all nodes of the fleet; name, remove or revoke one",
        "Print a line for each node that the SuperLink knows, also those on other machines or offline:\n"
        "its name, node-id, partition-id, status, site, age of the last heartbeat, and its key's fingerprint. NODE is\n"
        "a name, a node-id, or the start of a fingerprint. A node that was removed or revoked never comes back.",
        (*_ALL_FLEETS, "CONTROL_PORT"),
        "bouquet nodes\nbouquet nodes name 7203948571029384756 site-north\nbouquet nodes remove site-north\n"
        "bouquet nodes revoke SHA256:bn1SCgaP",
        (SettingError, FleetError),
    ),
    "swarm": CommandHelp(
        "run the fleet on the hosts of a Docker Swarm",
        "deploy  create what is missing (label of this host, secrets), deploy deploy/swarm/stack.yml, and wait until\n"
        "        all tasks are healthy; on a running stack, apply what has changed. Short for FLEET=swarm bouquet up\n"
        "images  build the images and bring them to the hosts: from this Docker into that of each HOST, or through a\n"
        "        registry; a host that has them is skipped\n"
        "down    remove the stack; volumes and secrets stay\n"
        "It runs on the SuperLink's host, a manager of the Swarm. With FLEET=swarm, or while the stack is up, the\n"
        "other commands work on the stack, too: bouquet run, status, logs, results.",
        (
            *("SUPERNODES", "SWARM_HOSTS", "SWARM_REGISTRY", "SWARM_IMAGES", "APP", "UP_TIMEOUT", "CONTROL_PORT"),
            *("FLEET_BIND", "SUPERLINK_NAMES", "CERTIFICATES", "GPUS", "DATASET", "HF_CACHE", "FLWR_HOME"),
        ),
        "docker swarm init\n"
        "bouquet swarm images ssh://host-2 ssh://host-3\n"
        "SUPERNODES=30 bouquet swarm deploy\n"
        "FLEET=swarm bouquet run",
        (SettingError, HostError, FleetError),
    ),
}
