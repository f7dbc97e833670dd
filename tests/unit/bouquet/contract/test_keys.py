"""Keys of nodes: Flower accepts them, a fingerprint identifies them, a SuperNode waits for its own."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from bouquet.contract.keys import fingerprint, key_path, make_key, public_key, wait_for_identity, write_identity
from bouquet.contract.tls_files import CA
from bouquet.errors import FleetError
from bouquet.files import write_if_changed


def test_flower_reads_the_key_and_accepts_its_curve(tmp_path: Path) -> None:
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, uses_nist_ec_curve
    from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode, _try_setup_client_authentication

    write_identity(tmp_path, 3, make_key())
    arguments = ["--auth-supernode-private-key", str(key_path(tmp_path, 3))]
    keys = _try_setup_client_authentication(_parse_args_run_supernode().parse_args(arguments))
    assert keys is not None
    assert uses_nist_ec_curve(bytes_to_public_key(public_key(key_path(tmp_path, 3).read_bytes())))
    assert key_path(tmp_path, 3).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen to compare with")
def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path) -> None:
    key = make_key()
    write_identity(tmp_path, 0, key)
    shown = subprocess.run(["ssh-keygen", "-lf", key_path(tmp_path, 0)], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[1] == fingerprint(public_key(key))


def test_a_supernode_waits_for_its_key_and_starts_once_it_is_there(tmp_path: Path) -> None:
    write_if_changed(tmp_path / CA, b"certificate")
    enrolment = threading.Timer(0.3, write_identity, (tmp_path, 2, make_key()))
    enrolment.start()
    assert wait_for_identity(tmp_path, 2, 30) == key_path(tmp_path, 2)
    enrolment.join()


def test_a_missing_key_is_named_with_a_hint(tmp_path: Path) -> None:
    write_identity(tmp_path, 0, make_key())
    write_if_changed(tmp_path / CA, b"certificate")
    with pytest.raises(FleetError, match="no key node-1.key in .* after 0.3 s; .*make join-command"):
        wait_for_identity(tmp_path, 1, 0.3)
