"""Enrolment: once per node, and again if the SuperLink has lost its state."""

from pathlib import Path

from bouquet.contract.keys import key_path, make_key, public_key, write_identity
from bouquet.flower.control_client import ControlClient
from bouquet.oneshot.enrol import enrol


class Register(ControlClient):
    """A SuperLink that remembers the keys that are enrolled, and all that ever were."""

    def __init__(self) -> None:
        self.keys: dict[bytes, int] = {}
        self.ever: set[bytes] = set()

    def registered(self) -> dict[bytes, int]:
        return dict(self.keys)

    def register(self, public_key: bytes) -> bool:
        if public_key in self.ever:
            return False
        self.ever.add(public_key)
        self.keys[public_key] = len(self.ever)
        return True


def keys(identities: Path, nodes: int) -> list[bytes]:
    return [key_path(identities, k).read_bytes() for k in range(nodes)]


def test_every_node_gets_its_own_key_which_the_superlink_knows(tmp_path: Path) -> None:
    register = Register()
    assert enrol(register, tmp_path, range(3)) == 3
    assert {public_key(key) for key in keys(tmp_path, 3)} == set(register.keys)
    assert len(register.keys) == 3


def test_a_second_time_nothing_changes_and_a_larger_fleet_keeps_its_nodes(tmp_path: Path) -> None:
    register = Register()
    enrol(register, tmp_path, range(2))
    before = keys(tmp_path, 2)
    assert enrol(register, tmp_path, range(2)) == 0
    assert enrol(register, tmp_path, range(4)) == 2
    assert keys(tmp_path, 2) == before


def test_a_superlink_that_lost_its_state_gets_the_same_keys_again(tmp_path: Path) -> None:
    enrol(Register(), tmp_path, range(2))
    before = keys(tmp_path, 2)
    register = Register()
    assert enrol(register, tmp_path, range(2)) == 2
    assert keys(tmp_path, 2) == before
    assert {public_key(key) for key in before} == set(register.keys)


def test_a_node_that_was_removed_gets_a_new_key_because_its_old_one_is_never_accepted_again(tmp_path: Path) -> None:
    register = Register()
    write_identity(tmp_path, 0, make_key())
    removed = key_path(tmp_path, 0).read_bytes()
    register.ever.add(public_key(removed))
    assert enrol(register, tmp_path, range(1)) == 1
    assert key_path(tmp_path, 0).read_bytes() != removed
    assert public_key(key_path(tmp_path, 0).read_bytes()) in register.keys
