"""The data to train on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bouquet.errors import HostError, SettingError
from bouquet.host.checks.training_data import data
from bouquet.host.hub import HubAnswer, probe_hub
from bouquet.host.readable import Reader


def hub(ahead: float | None = None, problem: str = "") -> Callable[[], HubAnswer]:
    """Return the probe of a hub whose clock differs from this one's."""
    return lambda: HubAnswer(problem, ahead)


def test_a_dataset_folder_needs_images(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"DATASET=.*no \.parquet file in this folder; give a folder in the layout"):
        data(tmp_path, hub(0))
    (tmp_path / "plain_text").mkdir()
    (tmp_path / "plain_text" / "train-0.parquet").touch()
    assert data(tmp_path, hub(0)) == f"{tmp_path} (DATASET)"


def test_a_dataset_that_the_containers_cannot_read_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "train-0.parquet").touch()
    (tmp_path / "train-0.parquet").chmod(0o600)
    with pytest.raises(SettingError, match=r"^DATASET=.*train-0.parquet \(mode 0600\)"):
        data(tmp_path, hub(0), Reader(in_container=True))
    assert data(tmp_path, hub(0), Reader(in_container=False))


def test_without_the_hub_the_sample_is_used_and_the_message_says_how_to_use_more() -> None:
    assert data(None, hub(0)) == "uoft-cs/cifar10, the hub answers"
    says = data(None, hub(problem="the hub does not answer (timed out)"))
    assert says.startswith("the shipped sample, because the hub does not answer (timed out); ")
    assert "DATASET=path" in says
    assert "because HF_HUB_OFFLINE=1" in data(None, lambda: probe_hub(offline=True))


def test_without_the_hub_a_brought_cache_that_has_it_is_used(tmp_path: Path) -> None:
    offline = hub(problem="HF_HUB_OFFLINE=1")
    assert data(None, offline, hf_cache=tmp_path).startswith("the shipped sample")
    (tmp_path / "datasets/uoft-cs___cifar10").mkdir(parents=True)
    assert (
        data(None, offline, hf_cache=tmp_path) == f"uoft-cs/cifar10 in {tmp_path} (HF_CACHE), because HF_HUB_OFFLINE=1"
    )
