"""The memory that the nodes need."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from bouquet.errors import HostError
from bouquet.host.checks.memory import MIB, memory


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the MiB of memory that are available."""

    def set_available(mib: int) -> None:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=mib * MIB))

    return set_available


def test_the_available_memory_is_compared_with_the_number_of_nodes(available: Callable[[int], None]) -> None:
    available(4000)
    assert memory(3, up=False).startswith("4000 MiB available, 3 SuperNodes use about 2900 MiB")
    with pytest.raises(HostError, match=r"4000 MiB available, 10 SuperNodes use about 7800 MiB; 4 fit: SUPERNODES=4"):
        memory(10, up=False)
    available(500)
    with pytest.raises(HostError, match="free some memory"):
        memory(1, up=False)


def test_a_fleet_that_is_up_has_its_memory(available: Callable[[int], None]) -> None:
    available(500)
    assert "has its memory" in memory(10, up=True)
