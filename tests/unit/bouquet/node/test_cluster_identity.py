"""A SuperNode in a cluster: its key comes from the seed and its slot, and the SuperLink assigns its partition."""

from pathlib import Path

import pytest

from bouquet.contract.keys import derive_key, key_path, make_key, public_key, read_seed
from bouquet.contract.tls_files import CA, CA_KEY
from bouquet.errors import SettingError
from bouquet.node.__main__ import acquire_slot, command_line, derive_identity
from bouquet.oneshot.authority import make_secrets
from bouquet.settings.node import ServingNodeSettings, SuperNodeSettings

SEED = "0123456789abcdef" * 4


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    make_secrets(tmp_path / "secrets")
    return {
        "TASK_SLOT": "3",
        "BOUQUET_SEED_FILE": str(tmp_path / "secrets" / "seed"),
        "BOUQUET_CA_FILE": str(tmp_path / "secrets" / CA),
        "BOUQUET_IDENTITY_DIR": str(tmp_path / "identities"),
    }


def test_the_same_slot_has_the_same_key_and_each_slot_another() -> None:
    keys = [public_key(derive_key(SEED.encode(), slot)) for slot in (0, 1, 0)]
    assert keys[0] == keys[2] != keys[1]
    assert public_key(derive_key(b"another seed of 32 characters...", 0)) not in keys


def test_a_key_that_was_derived_has_the_form_of_one_that_was_made() -> None:
    def form(key: bytes) -> tuple[bytes, int]:
        return key.splitlines()[0], len(public_key(key))

    assert form(derive_key(SEED.encode(), 0)) == form(make_key())


def test_the_key_of_a_slot_is_the_same_in_every_release() -> None:
    """A node would be another one to the SuperLink after an upgrade otherwise."""
    line = public_key(derive_key(b"0" * 32, 7)).splitlines()[1]
    assert line == b"MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEHDaqrLbvFg8Fhv6MtFw0rM45D/u5Dljq"


def test_a_node_of_a_cluster_writes_its_key_and_the_ca_and_takes_no_lease(
    environment: dict[str, str], tmp_path: Path
) -> None:
    settings = SuperNodeSettings.read(environment)
    slot, on_its_machine = acquire_slot(settings)
    assert (slot, on_its_machine) == (2, 1)
    derive_identity(settings, slot)
    identities = tmp_path / "identities"
    seed = read_seed(tmp_path / "secrets" / "seed")
    assert public_key(key_path(identities, 2).read_bytes()) == public_key(derive_key(seed, 2))
    assert key_path(identities, 2).stat().st_mode & 0o777 == 0o600
    assert (identities / CA).read_bytes() == (tmp_path / "secrets" / CA).read_bytes()
    assert str(key_path(identities, 2)) in command_line(settings, slot, on_its_machine)


def test_a_pod_of_a_statefulset_has_a_slot_too(environment: dict[str, str]) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAME": "bouquet-supernode-4", "TASK_SLOT": ""}
    assert SuperNodeSettings.read(environment | pod).slot == 4


def test_without_a_seed_a_slot_is_the_partition_that_a_node_is_pinned_to() -> None:
    settings = SuperNodeSettings.read({"TASK_SLOT": "3"})
    assert (settings.slot, settings.partition_id) == (None, 2)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"TASK_SLOT": ""}, "BOUQUET_SEED_FILE=.*: this node has no slot in a cluster"),
        ({"BOUQUET_SEED_FILE": "/missing"}, "BOUQUET_SEED_FILE=/missing: it cannot be read .No such file"),
        ({"EXECUTOR": "stock"}, "EXECUTOR=stock: Flower's own executor does not learn its partition"),
        ({"BOUQUET_CA_FILE": "/missing"}, "BOUQUET_CA_FILE=/missing: it cannot be read .No such file"),
    ],
)
def test_what_is_missing_is_named(environment: dict[str, str], change: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        derive_identity(SuperNodeSettings.read(environment | change), 2)


def test_a_seed_that_is_too_short_to_be_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seed").write_text("secret\n")
    with pytest.raises(SettingError, match="it has 6 bytes, and 32 are needed; give a file with 64 random hex digits"):
        read_seed(tmp_path / "seed")


def test_secrets_that_exist_are_kept(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {CA, CA_KEY, "seed"}
    make_secrets(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in (CA_KEY, "seed"))


def test_a_joined_node_has_no_partition_until_the_superlink_assigns_one_unless_it_is_pinned() -> None:
    joined = SuperNodeSettings.read({"BOUQUET_JOINED": "1"})
    assert acquire_slot(joined) == (0, 1)
    serving = ServingNodeSettings.read({"BOUQUET_JOINED": "1", "BOUQUET_PARTITION_ID": "0"})
    assert (serving.joined, serving.pinned, serving.slot) == (True, False, None)
