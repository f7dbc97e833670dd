"""The start lock: a second start waits for the first, and says so."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.start_lock import WAITING, StartLock
from bouquet.settings.host import HostSettings

SETTINGS = HostSettings.read({})


def test_a_second_start_of_a_fleet_says_that_it_waits_and_follows_the_first(tmp_path: Path) -> None:
    settings, waits, order = replace(SETTINGS, home=tmp_path / "home"), threading.Event(), []
    first, said = StartLock(), []

    def start_second() -> None:
        def say(line: str) -> None:
            said.append(line)
            waits.set()

        second = StartLock()
        second.acquire(settings, say)
        order.append("second")
        second.release()

    first.acquire(settings, pytest.fail)
    thread = threading.Thread(target=start_second)
    thread.start()
    assert waits.wait(10)
    order.append("first")
    first.release()
    thread.join(10)
    assert (order, said) == (["first", "second"], [WAITING])


def test_another_fleet_of_the_checkout_does_not_wait(tmp_path: Path) -> None:
    settings = replace(SETTINGS, home=tmp_path)
    first, second = StartLock(), StartLock()
    first.acquire(settings, pytest.fail)
    second.acquire(replace(settings, compose_project="second"), pytest.fail)
    assert len(list(tmp_path.iterdir())) == 2
    first.release()
    second.release()


def test_a_lock_that_was_never_acquired_can_be_released() -> None:
    StartLock().release()


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="BOUQUET_HOME=.*file: cannot be written"):
        StartLock().acquire(replace(SETTINGS, home=tmp_path / "file"), pytest.fail)
