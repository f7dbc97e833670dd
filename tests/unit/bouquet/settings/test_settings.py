"""Settings: defaults, limits, and one clear line for each impossible value."""

from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import SettingError
from bouquet.node.cores import share_of_cores
from bouquet.settings.executor_settings import VARIABLES, ExecutorSettings
from bouquet.settings.gpu_settings import GpuSettings
from bouquet.settings.host import PROJECT, HostSettings
from bouquet.settings.node import SuperNodeSettings
from bouquet.settings.oneshot import EnrolSettings
from bouquet.settings.run_settings import RunSettings
from bouquet.settings.superlink import SuperLinkSettings


def test_an_empty_environment_gives_ten_supernodes_and_the_default_ports() -> None:
    settings = HostSettings.read({})
    assert (settings.supernodes, settings.control_port, settings.fleet_port) == (10, 9093, 9092)
    assert settings.dataset is None


def test_an_empty_value_means_not_given() -> None:
    settings = SuperNodeSettings.read({"PARTITION_ID": "", "SUPERNODES": " ", "BOUQUET_DATASET": ""})
    assert (settings.partition_id, settings.supernodes, settings.dataset) == (None, 10, None)


@pytest.mark.parametrize("value", ["0", "-1", "ten", "1.5", "100000"])
@pytest.mark.parametrize("reader", [HostSettings, EnrolSettings, SuperNodeSettings])
def test_an_impossible_number_of_supernodes_is_refused_by_every_reader(
    value: str, reader: type[HostSettings | EnrolSettings | SuperNodeSettings]
) -> None:
    with pytest.raises(SettingError) as refused:
        reader.read({"SUPERNODES": value})
    assert str(refused.value).startswith(f"SUPERNODES={value}: ")
    assert "SUPERNODES=10" in refused.value.hint
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("value", ["-1", "3", "x"])
def test_a_partition_id_outside_the_fleet_is_refused(value: str) -> None:
    with pytest.raises(SettingError, match=f"PARTITION_ID={value}: .*from 0 to 2"):
        SuperNodeSettings.read({"SUPERNODES": "3", "PARTITION_ID": value})


@pytest.mark.parametrize(
    ("given", "partition_id", "partition_id_source"),
    [
        ({"PARTITION_ID": "2", "TASK_SLOT": "9", "KUBERNETES_SERVICE_HOST": "x"}, 2, "PARTITION_ID"),
        ({"TASK_SLOT": "1", "KUBERNETES_SERVICE_HOST": "x", "HOSTNAME": "supernode-5"}, 0, "TASK_SLOT"),
        ({"TASK_SLOT": "{{.Task.Slot}}"}, None, "PARTITION_ID"),
        ({"KUBERNETES_SERVICE_HOST": "x", "HOSTNAME": "supernode-5"}, 5, "POD_NAME"),
        ({"KUBERNETES_SERVICE_HOST": "x", "HOSTNAME": "node", "POD_NAME": "supernode-0"}, 0, "POD_NAME"),
        ({"KUBERNETES_SERVICE_HOST": "x", "HOSTNAME": "supernode-7d4b9c-24567"}, None, "PARTITION_ID"),
        ({"HOSTNAME": "machine-3"}, None, "PARTITION_ID"),
        ({}, None, "PARTITION_ID"),
    ],
)
def test_a_node_is_told_its_partition_by_the_user_then_swarm_then_kubernetes_or_by_nobody(
    given: dict[str, str], partition_id: int | None, partition_id_source: str
) -> None:
    settings = SuperNodeSettings.read({"BOUQUET_SIZE_FILE": "/size", **given})
    assert (settings.partition_id, settings.partition_id_source) == (partition_id, partition_id_source)


def test_an_impossible_slot_is_refused() -> None:
    with pytest.raises(SettingError, match="TASK_SLOT=0: out of range"):
        SuperNodeSettings.read({"TASK_SLOT": "0"})


def test_a_dataset_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(SettingError, match="DATASET=.*missing: there is no such folder; give a folder"):
        HostSettings.read({"DATASET": str(missing)})


@pytest.mark.parametrize("value", ["0", "65536", "http"])
def test_an_impossible_port_is_refused(value: str) -> None:
    with pytest.raises(SettingError, match=f"CONTROL_PORT={value}: "):
        HostSettings.read({"CONTROL_PORT": value})


def test_an_unknown_kind_of_fleet_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match="FLEET=pods: unknown value; give one of: auto, containers, processes"):
        HostSettings.read({"FLEET": "pods"})


def test_the_runtime_apis_stay_on_loopback_unless_told_otherwise() -> None:
    assert SuperLinkSettings.read({}).runtime_address.startswith("127.0.0.1:")
    assert SuperNodeSettings.read({}).runtime_address.startswith("127.0.0.1:")


def test_nodes_share_the_cores_and_each_gets_at_least_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    assert [share_of_cores(n, tmp_path) for n in (1, 5, 10, 100)] == [16, 3, 1, 1]
    assert SuperNodeSettings.read({"SUPERNODES": "10", "TF_THREADS": "4"}).threads == 4


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"cpu.max": "300000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_container_with_a_cpu_limit_gets_that_many_threads(
    files: dict[str, str], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert share_of_cores(2, tmp_path) == threads


def test_without_tls_the_fleet_stays_on_this_machine() -> None:
    assert HostSettings.read({"INSECURE": "1"}).fleet_bind == "127.0.0.1"
    for reader in (HostSettings, SuperLinkSettings):
        with pytest.raises(SettingError, match="FLEET_BIND=0.0.0.0: INSECURE=1 would let any machine join"):
            reader.read({"INSECURE": "1", "FLEET_BIND": "0.0.0.0"})


def test_tls_and_keys_are_the_default() -> None:
    for reader in (HostSettings, SuperLinkSettings, SuperNodeSettings):
        assert reader.read({}).insecure is False
    with pytest.raises(SettingError, match="INSECURE=yes: unknown value; give one of: 0, 1"):
        SuperNodeSettings.read({"INSECURE": "yes"})


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("FLEET_BIND", "everywhere", "not an IP address"),
        ("CERTIFICATES", "/no/such", "there is no such folder; give a folder with ca.crt, server.pem and server.key"),
        ("HF_TOKEN_FILE", "/no/such", "there is no such file"),
    ],
)
def test_what_concerns_security_is_checked_before_anything_starts(name: str, value: str, problem: str) -> None:
    with pytest.raises(SettingError, match=f"{name}={value}: {problem}"):
        HostSettings.read({name: value})


def test_gpus_are_what_there_is_unless_a_list_or_none_is_given() -> None:
    assert GpuSettings.read({}).devices is None
    assert GpuSettings.read({"GPUS": "auto"}).devices is None
    assert GpuSettings.read({"GPUS": "none"}).devices == ()
    assert [device.id for device in GpuSettings.read({"GPUS": "0:24GiB,1:24GiB"}).devices or ()] == ["0", "1"]


def test_an_impossible_share_of_gpu_memory_is_refused() -> None:
    assert GpuSettings.read({"GPU_MEMORY": "1.5GiB"}).memory_mib == 1536
    assert GpuSettings.read({"GPU_MEMORY": "1/20"}).nodes == 20
    for value in ("much", "0MiB", "2", "1/0", "2/3"):
        with pytest.raises(SettingError, match=f"GPU_MEMORY={value}: "):
            GpuSettings.read({"GPU_MEMORY": value})


def test_a_nodes_own_gpu_is_a_device_without_a_size() -> None:
    with pytest.raises(SettingError, match="GPU=1:4GiB: a device only; set its memory by GPU_MEMORY"):
        GpuSettings.read({"GPU": "1:4GiB"})


@pytest.mark.parametrize("value", ["-1", "two", "nan", "inf"])
def test_an_impossible_limit_on_cpus_is_refused_and_0_means_no_limit(value: str) -> None:
    with pytest.raises(SettingError, match=f"SUPERNODE_CPUS={value}: not a number of CPUs; .* 0 for no limit"):
        HostSettings.read({"SUPERNODE_CPUS": value})
    assert HostSettings.read({"SUPERNODE_CPUS": "0", "SUPERLINK_CPUS": "1.5"}).without_cpu_limit == ("SUPERNODE_CPUS",)


@pytest.mark.parametrize("name", ["DATASET", "CERTIFICATES", "HF_TOKEN_FILE"])
def test_a_path_in_a_folder_that_this_user_may_not_enter_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(SettingError, match=rf"{name}=/root/x: cannot be looked at \(Permission denied\); give"):
        HostSettings.read({name: "/root/x"})


def test_the_variables_of_the_executor_are_those_that_it_reads() -> None:
    class Recorder(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            self[key] = ""
            return super().get(key, default)

    recorder = Recorder()
    ExecutorSettings.read("clientapp", recorder)
    assert set(recorder) == set(VARIABLES)


def test_a_run_waits_two_minutes_for_the_fleet_and_an_hour_for_replies_by_default() -> None:
    settings = RunSettings.read({"BOUQUET_RUN_DIR": "/run"})
    assert (settings.fleet_deadline, settings.round_deadline) == (120, 3600)
    assert settings.run_dir == Path("/run")
    assert RunSettings.read({"ROUND_DEADLINE": "0"}).round_deadline is None


@pytest.mark.parametrize(
    ("name", "value"), [("FLEET_DEADLINE", "0"), ("ROUND_DEADLINE", "-1"), ("ROUND_DEADLINE", "1h")]
)
def test_an_impossible_deadline_is_refused_before_anything_starts(name: str, value: str) -> None:
    for reader in (HostSettings, SuperLinkSettings, RunSettings):
        with pytest.raises(SettingError, match=f"{name}={value}: "):
            reader.read({name: value})


def test_the_bounds_of_a_clientapps_process_are_not_set_by_default() -> None:
    settings = ExecutorSettings.read("clientapp", {"EXECUTOR_GROWTH": ""})
    assert (settings.messages, settings.growth_mib) == (None, None)
    settings = ExecutorSettings.read("clientapp", {"EXECUTOR_MESSAGES": "1", "EXECUTOR_GROWTH": "0"})
    assert (settings.messages, settings.growth_mib) == (1, 0)


@pytest.mark.parametrize(("name", "value"), [("EXECUTOR_MESSAGES", "-1"), ("EXECUTOR_GROWTH", "512m")])
def test_an_impossible_bound_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{name}={value}: .*give a whole number from 0 to 1000000"):
        ExecutorSettings.read("clientapp", {name: value})


def test_a_tilde_in_a_path_is_the_home_and_a_relative_path_starts_at_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home of é"))
    monkeypatch.chdir(tmp_path)
    names = ("APP", "RESULTS", "FLWR_HOME", "BOUQUET_HOME")
    for given, expected in (("~/a b", tmp_path / "home of é" / "a b"), ("a b", PROJECT / "a b")):
        settings = HostSettings.read(dict.fromkeys(names, given))
        assert (settings.app, settings.results, settings.flower_home, settings.home) == (expected,) * 4
    folder, file = tmp_path / "home of é" / "data", tmp_path / "home of é" / "token"
    folder.mkdir(parents=True)
    file.touch()
    settings = HostSettings.read({"DATASET": "~/data", "CERTIFICATES": "~/data", "HF_TOKEN_FILE": "~/token"})
    assert (settings.dataset, settings.certificates.user_dir, settings.hub_token) == (folder, folder, file)
    assert HostSettings.read({}).app == PROJECT
    assert HostSettings.read({"DATASET": "data/cifar10-sample"}).dataset == PROJECT / "data" / "cifar10-sample"


def test_a_home_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(SettingError, match="RESULTS=~nobody-here/x: there is no such home folder"):
        HostSettings.read({"RESULTS": "~nobody-here/x"})


@pytest.mark.parametrize(
    ("value", "preload"),
    [("", None), ("none", ()), ("numpy", ("numpy",)), ("keras, flwr_datasets", ("keras", "flwr_datasets"))],
)
def test_what_is_preloaded_follows_from_the_packages_unless_the_setting_says_it(
    value: str, preload: tuple[str, ...] | None
) -> None:
    assert ExecutorSettings.read("clientapp", {"EXECUTOR_PRELOAD": value}).preload == preload
