from pathlib import Path

from bouquet.contract.readiness import Readiness, is_ready
from bouquet.runtime.health import Health


def test_ready_means_that_flower_and_the_executor_are_both_up(tmp_path: Path) -> None:
    health = Health(Readiness(tmp_path))
    assert not is_ready(tmp_path)
    health.set_flower(True)
    assert not is_ready(tmp_path)
    health.set_executor(True)
    assert is_ready(tmp_path)


def test_readiness_is_withdrawn_and_comes_back_with_either_part(tmp_path: Path) -> None:
    health = Health(Readiness(tmp_path))
    health.set_flower(True)
    health.set_executor(True)
    for set_part in (health.set_flower, health.set_executor):
        set_part(False)
        assert not is_ready(tmp_path)
        set_part(True)
        assert is_ready(tmp_path)
