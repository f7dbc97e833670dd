"""What surrounds a fleet: the umask of its checkout, and the HTTP proxies of the machine."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bouquet.host.bootstrap import base_image, compose_plugin
from bouquet.host.packages.package_env import ensure_environment
from bouquet.host.packages.package_list import package_list
from bouquet.settings.host import HostSettings
from tests.e2e.conftest import CONNECTION, PROJECT, TAG, Bouquet, StartFleet, printed_json

PROXY = "http://127.0.0.1:9"
"""A proxy that refuses connections."""


def clone(folder: Path) -> Path:
    """Copy the checkout's files, with the modes of a clone made under umask 077."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    before = os.umask(0o077)
    try:
        for name in filter(None, listed.stdout.split("\0")):
            if (PROJECT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(PROJECT / name, folder / name)
    finally:
        os.umask(before)
    return folder


def docker_config(folder: Path) -> Path:
    """Make a folder of Docker's client configuration, with the user's plugins and a proxy for all containers."""
    folder.mkdir()
    if compose_plugin.plugin_folder().is_dir():
        (folder / "cli-plugins").symlink_to(compose_plugin.plugin_folder())
    proxies = {"default": {"httpProxy": PROXY, "httpsProxy": PROXY, "noProxy": "localhost,127.0.0.0/8"}}
    (folder / "config.json").write_text(json.dumps({"proxies": proxies}))
    return folder


@pytest.fixture(scope="module")
def fleet(docker: None, start_fleet: StartFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bouquet]:
    """One node, of a checkout made under umask 077, behind the proxies of Docker's client configuration."""
    folder = tmp_path_factory.mktemp("surroundings")
    checkout = clone(folder / "checkout")
    compose_plugin.ensure()
    base = os.environ.get("BASE_IMAGE") or base_image.ensure()
    # Packages are downloaded without the proxy, if this machine has not built the images yet.
    subprocess.run(
        ["docker", "compose", "build"], cwd=checkout, env=os.environ | {"BASE_IMAGE": base, "TAG": TAG}, check=True
    )
    with start_fleet(
        "containers",
        folder,
        SUPERNODES="1",
        EXECUTOR_PRELOAD="numpy",
        BASE_IMAGE=base,
        PYTHONPATH=str(checkout / "deploy"),  # the command is the clone's
        DOCKER_CONFIG=str(docker_config(folder / "docker")),
    ) as fleet:
        yield fleet


def inside(fleet: Bouquet, service: str, code: str) -> str:
    """What Python code prints in a container."""
    return str(fleet.compose.execute(service, ["python", "-P", "-c", code], tty=False)).strip()


def test_the_containers_read_the_files_of_a_checkout_made_under_umask_077(fleet: Bouquet) -> None:
    assert stat.S_IMODE((fleet.folder / "checkout" / "deploy" / "bouquet" / "errors.py").stat().st_mode) == 0o600
    for service in ("superlink", "supernode"):
        code = (
            "import os, pathlib; files = [*pathlib.Path('/opt/bouquet').rglob('*')]; "
            "print(len(files) > 50, all(os.access(file, os.R_OK) for file in files))"
        )
        assert inside(fleet, service, code) == "True True"


def test_an_unreadable_default_secret_means_no_token(fleet: Bouquet) -> None:
    assert stat.S_IMODE((fleet.folder / "checkout" / "deploy" / "compose" / "empty").stat().st_mode) == 0o600
    assert inside(fleet, "supernode", "import huggingface_hub; print(huggingface_hub.get_token())") == "None"


def test_a_run_completes_behind_proxies_which_stay_for_downloads(fleet: Bouquet) -> None:
    for service in ("superlink", "supernode"):
        assert inside(fleet, service, "import os; print(os.environ['https_proxy'], os.environ['HTTP_PROXY'])") == (
            f"{PROXY} {PROXY}"
        )
    log = fleet.submit("numpy_mean", "--stream", nodes=1, num_server_rounds=2)
    [result] = printed_json("numpy_mean", log)
    assert result["weights"] == pytest.approx(result["central-weights"])


def test_flowers_own_processes_reach_each_other_behind_the_proxies_of_the_environment(
    start_fleet: StartFleet, tmp_path: Path
) -> None:
    # Packages are downloaded without the proxy, if this machine has not installed them yet.
    ensure_environment(package_list(PROJECT, HostSettings.read({}), gpus=False))
    proxies = {"http_proxy": PROXY, "https_proxy": PROXY, "no_proxy": "", "NO_PROXY": ""}
    with start_fleet("processes", tmp_path, SUPERNODES="1", EXECUTOR="stock", **proxies) as fleet:
        assert "UNAVAILABLE" not in fleet.process_log("supernode-0")
        assert "unavailable" in fleet.try_flwr("ls", CONNECTION).stdout  # a `flwr` that the user types
        fleet.environment["no_proxy"] = "127.0.0.1,localhost"
        log = fleet.submit("numpy_mean", "--stream", nodes=1, num_server_rounds=1)
        assert len(printed_json("numpy_mean", log)) == 1
