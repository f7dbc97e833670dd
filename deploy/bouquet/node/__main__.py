"""Entry point of a SuperNode: `python -m bouquet.node`.

It reads the settings, acquires a partition with its key and its share of a GPU, and replaces itself by the process
that serves. TensorFlow and gRPC read their environment variables when they are imported: so this module sets the
variables and imports neither of the two.
"""

import os
import sys
from functools import partial

from bouquet.contract.fleet_size import read_partitions
from bouquet.contract.keys import derive_key, key_path, read_seed, wait_for_identity, write_identity
from bouquet.contract.leases import lease_partition
from bouquet.contract.tls_files import CA
from bouquet.errors import SettingError, report_errors
from bouquet.files import write_if_changed
from bouquet.gpu import nvidia, plan
from bouquet.node.cores import share_of_cores
from bouquet.node.slot import acquire_partition
from bouquet.runtime import grpc_proxy, hub_cache
from bouquet.runtime.process import exec_module, resolve_port
from bouquet.settings.env import INSECURE_WARNING
from bouquet.settings.node import PARTITION_ID, PARTITION_PINNED, SLOT, SuperNodeSettings
from bouquet.settings.node_config_settings import Value, notation

THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def node_config(settings: SuperNodeSettings, partition_id: int, supernodes: int) -> str:
    """Return what the ClientApp finds in `context.node_config`, in Flower's notation."""
    config: dict[str, Value] = {"partition-id": partition_id, "num-partitions": supernodes}
    if settings.dataset is not None:
        config["dataset"] = settings.dataset
    return notation({**config, **settings.node_config.of(partition_id)})


def command_line(settings: SuperNodeSettings, partition_id: int, supernodes: int) -> list[str]:
    """Return the arguments of `flower-supernode`."""
    return [
        *security(settings, partition_id),
        "--superlink",
        settings.superlink,
        "--max-wait-time",
        str(settings.superlink_max_wait),
        "--clientappio-api-address",
        resolve_port(settings.runtime_address),
        "--node-config",
        node_config(settings, partition_id, supernodes),
    ]


def acquire_slot(settings: SuperNodeSettings) -> tuple[int, int]:
    """Return the partition-id that this SuperNode holds until it ends, and the number of partitions.

    In a cluster, and where it has joined from another machine, the SuperLink assigns the partition later. The number
    then stands for the node's key, and the node does not share its machine's cores and GPUs with others of the fleet.
    """
    if settings.slot is not None:
        return settings.slot, 1
    if settings.joined:
        return settings.partition_id or 0, 1
    leases, wanted, source = settings.directories.leases, settings.partition_id, settings.partition_id_source
    if settings.size_file is None:  # a fleet whose size does not change
        return lease_partition(leases, settings.supernodes, wanted, source), settings.supernodes
    return acquire_partition(leases, partial(read_partitions, settings.size_file), wanted, source)


def derive_identity(settings: SuperNodeSettings, slot: int) -> None:
    """Write the key of a cluster's slot, and the CA's certificate, where this SuperNode reads them.

    Raises:
        SettingError: The seed or the CA's certificate cannot be read.
    """
    assert settings.seed_file is not None  # noqa: S101  for mypy
    identities = settings.directories.identities
    write_identity(identities, slot, derive_key(read_seed(settings.seed_file), slot))
    if settings.ca_file is not None:
        try:
            write_if_changed(identities / CA, settings.ca_file.read_bytes())
        except OSError as error:
            raise SettingError(
                "BOUQUET_CA_FILE",
                settings.ca_file,
                f"it cannot be read ({error.strerror})",
                "give the file with the CA's certificate",
            ) from error


def security(settings: SuperNodeSettings, partition_id: int) -> list[str]:
    """Return the arguments for TLS and the partition's key, or for neither."""
    if settings.insecure:
        return ["--insecure"]
    identities = settings.directories.identities
    return [
        *("--root-certificates", str(identities / CA)),
        *("--auth-supernode-private-key", str(key_path(identities, partition_id))),
    ]


def main() -> None:
    """Check the settings, acquire a partition, and replace this process by the one that serves."""
    settings = SuperNodeSettings.read()
    grpc_proxy.only_on_request()
    hub_cache.link(*settings.hub_cache)
    partition_id, supernodes = acquire_slot(settings)
    if settings.slot is not None:
        os.environ[SLOT] = str(settings.slot)
        derive_identity(settings, settings.slot)
    elif not settings.joined:
        try:
            settings.node_config.check_partitions(supernodes)
        except SettingError as error:  # a warning: the fleet may be growing
            sys.stderr.write(f"bouquet: warning: {error}\n")
    os.environ[PARTITION_ID] = str(partition_id)
    os.environ[PARTITION_PINNED] = str(int(settings.partition_id is not None))
    if settings.insecure:
        sys.stderr.write(f"bouquet: warning: {INSECURE_WARNING}\n")
    else:
        wait_for_identity(settings.directories.identities, partition_id, settings.superlink_max_wait)
    # TensorFlow starts a thread per core by default: ten nodes on one machine would compete for the cores.
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, str(settings.threads or share_of_cores(supernodes)))
    share, why = nvidia.share(settings.gpus, supernodes, partition_id)
    os.environ.update(plan.environment(share))
    device = str(share) if share else "CPU"
    print(f"bouquet: partition-id {partition_id} computes on: {device} ({why})", flush=True)
    exec_module("bouquet.node.serve_supernode", command_line(settings, partition_id, supernodes))


if __name__ == "__main__":
    report_errors(main)
