"""Entry point of a SuperNode: settings from the environment, a place in the fleet, a command line, then `exec`."""

import os
from functools import partial

from deploy import gpu, nvidia
from deploy.certificates import CA
from deploy.entry import become, concrete, report, warn_of_insecurity
from deploy.identity import key_path, wait_for_identity
from deploy.partition import take_partition
from deploy.place import wait_for_place
from deploy.settings import SuperNodeSettings, share_of_cores
from deploy.size import read_size

THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def node_config(settings: SuperNodeSettings, partition_id: int, supernodes: int) -> str:
    """Return what the ClientApp finds in `context.node_config`, in Flower's notation."""
    config = f"partition-id={partition_id} num-partitions={supernodes}"
    if settings.dataset is not None:
        config += f' dataset="{settings.dataset}"'
    return config


def command_line(settings: SuperNodeSettings, partition_id: int, supernodes: int) -> list[str]:
    """Return the arguments of `flower-supernode`."""
    return [
        *security(settings, partition_id),
        "--superlink",
        settings.superlink,
        "--max-wait-time",
        str(settings.superlink_max_wait),
        "--clientappio-api-address",
        concrete(settings.runtime_address),
        "--node-config",
        node_config(settings, partition_id, supernodes),
    ]


def take_place(settings: SuperNodeSettings) -> tuple[int, int]:
    """Return the partition-id that this SuperNode holds from now on, and the fleet's size."""
    leases, wanted, named_by = settings.directories.leases, settings.partition_id, settings.named_by
    if settings.size_file is None:  # a fleet whose size does not change
        return take_partition(leases, settings.supernodes, wanted, named_by), settings.supernodes
    return wait_for_place(leases, partial(read_size, settings.size_file), wanted, named_by)


def security(settings: SuperNodeSettings, partition_id: int) -> list[str]:
    """Return the arguments for TLS and the key that goes with the partition, or for neither."""
    if settings.insecure:
        return ["--insecure"]
    identities = settings.directories.identities
    return [
        *("--root-certificates", str(identities / CA)),
        *("--auth-supernode-private-key", str(key_path(identities, partition_id))),
    ]


def main() -> None:
    """Check the settings, take a place, and become the process that runs `flower-supernode`."""
    settings = SuperNodeSettings.read()
    partition_id, supernodes = take_place(settings)
    os.environ["BOUQUET_PLACE"] = f"{partition_id} {'leased' if settings.partition_id is None else 'given'}"
    if settings.insecure:
        warn_of_insecurity()
    else:
        wait_for_identity(settings.directories.identities, partition_id, settings.superlink_max_wait)
    # Ten nodes with as many TensorFlow threads as cores each fight for them: each gets its share.
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, str(settings.threads or share_of_cores(supernodes)))
    share, why = nvidia.share(settings.gpus, supernodes, partition_id)
    os.environ.update(gpu.environment(share))
    device = str(share) if share else "CPU"
    print(f"bouquet: partition-id {partition_id} computes on: {device} ({why})", flush=True)
    become("deploy.serve", ["supernode", *command_line(settings, partition_id, supernodes)])


if __name__ == "__main__":
    report(main)
