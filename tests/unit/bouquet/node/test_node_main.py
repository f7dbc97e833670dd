"""The SuperNode's entry point: what it sets up before it replaces itself by the serving process."""

import os
from pathlib import Path

import pytest

from bouquet.node import __main__ as supernode
from bouquet.settings.node import SuperNodeSettings
from tests.unit.bouquet.conftest import Install

INHERITED = ("SUPERNODES", "PARTITION_ID", "EXECUTOR", "GPU", "CUDA", "BOUQUET", "TF_", "OMP_", "NODE_", "HF_")
"""Prefixes of settings that the environment of the test run may contain."""


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The module and the arguments that the entry point executes."""
    for name in [name for name in os.environ if name.startswith(INHERITED)]:
        monkeypatch.delenv(name)
    for name in ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "BOUQUET_GPU", "BOUQUET_GPU_MEMORY_MIB"):
        monkeypatch.setenv(name, "original")  # so that monkeypatch restores what the entry point sets
    jax = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")
    for name in (*supernode.THREAD_VARIABLES, "TF_FORCE_GPU_ALLOW_GROWTH", *jax):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("BOUQUET_SLOT", "")  # likewise
    monkeypatch.setenv("BOUQUET_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("INSECURE", "1")  # so there is no key to wait for
    line: list[str] = []
    monkeypatch.setattr(supernode, "exec_module", lambda module, arguments: line.extend([module, *arguments]))
    return line


def test_a_node_without_gpus_computes_on_the_cpu_and_says_why(
    executed: list[str], install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install()
    supernode.main()
    assert "bouquet: partition-id 0 computes on: CPU (nvidia-smi is not installed)\n" in capsys.readouterr().out
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
    assert executed[:2] == ["bouquet.node.serve_supernode", "--insecure"]


def test_each_node_is_bound_to_its_share_by_its_partition_id(
    executed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPUS", "0:24GiB,MIG-1a:24GiB")
    for partition_id, device, visible in ((0, "GPU 0", "0"), (1, "MIG-1a", "MIG-1a"), (2, "GPU 0", "0")):
        supernode.main()
        assert (
            f"partition-id {partition_id} computes on: {device}, at most 1561 MiB per process"
            in capsys.readouterr().out
        )
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
        assert os.environ["BOUQUET_GPU_MEMORY_MIB"] == "1561"
    assert "partition-id=2 num-partitions=10" in executed


def test_a_node_of_a_cluster_shares_a_gpu_of_its_machine_with_no_other(
    executed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "seed").write_text("0" * 64)
    monkeypatch.setenv("BOUQUET_SEED_FILE", str(tmp_path / "seed"))
    monkeypatch.setenv("BOUQUET_IDENTITY_DIR", str(tmp_path / "identities"))
    monkeypatch.setenv("TASK_SLOT", "4")
    monkeypatch.setenv("GPUS", "0:24GiB")
    supernode.main()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert os.environ["BOUQUET_SLOT"] == "3"


@pytest.mark.parametrize(
    "path", ["/a b", "/it's", '/a "quoted" name', "/back\\slash\\n", "/x=1 y", "/é\tü\nx", "/a.toml"]
)
def test_flower_reads_the_dataset_of_a_node_whatever_its_path(path: str) -> None:
    from flwr.common.config import parse_config_args

    settings = SuperNodeSettings.read({"BOUQUET_DATASET": path})
    expected = {"partition-id": 1, "num-partitions": 2, "dataset": path}
    assert parse_config_args([supernode.node_config(settings, 1, 2)]) == expected


def test_a_node_gets_the_keys_of_its_partition_and_its_own_dataset_wins(tmp_path: Path) -> None:
    from flwr.common.config import parse_config_args

    (tmp_path / "nodes.toml").write_text('site = "north"\n[1]\nsite = "south"\ndataset = "/own"\n')
    file = str(tmp_path / "nodes.toml")
    settings = SuperNodeSettings.read({"BOUQUET_DATASET": "/dataset", "BOUQUET_NODE_CONFIG_FILE": file})
    for partition_id, own in ((0, {"site": "north", "dataset": "/dataset"}), (1, {"site": "south", "dataset": "/own"})):
        expected = {"partition-id": partition_id, "num-partitions": 2, **own}
        assert parse_config_args([supernode.node_config(settings, partition_id, 2)]) == expected


def test_keys_for_a_partition_that_the_fleet_does_not_have_yet_are_a_warning(
    executed: list[str],
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install()
    (tmp_path / "nodes.toml").write_text("[10]\na = 1\n")
    monkeypatch.setenv("BOUQUET_NODE_CONFIG_FILE", str(tmp_path / "nodes.toml"))
    supernode.main()
    assert "bouquet: warning: NODE_CONFIG_FILE=" in capsys.readouterr().err
    assert executed[0] == "bouquet.node.serve_supernode"


def test_a_node_links_the_brought_cache_before_it_serves(
    executed: list[str], install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install()
    (tmp_path / "brought/datasets").mkdir(parents=True)
    (tmp_path / "brought/datasets/data").write_text("rows")
    monkeypatch.setenv("BOUQUET_HF_CACHE", str(tmp_path / "brought"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    supernode.main()
    assert executed
    assert (tmp_path / "home/datasets/data").read_text() == "rows"
