"""Whether the fleet can read the user's own files: the dataset, certificates, and the hub's token."""

import os
from collections.abc import Mapping
from pathlib import Path

from bouquet.contract.tls_files import CA, SERVER, SERVER_KEY
from bouquet.errors import SettingError
from bouquet.host.readable import Reader, check_readable
from bouquet.settings.host import PROJECT, HostSettings


def user_files(settings: HostSettings, reader: Reader) -> str:
    """Check that the fleet can read the certificates and the token that settings name.

    Raises:
        SettingError: It cannot read one of them.
    """
    found = []
    if settings.certificates.user_dir is not None:
        for name in (CA, SERVER, SERVER_KEY):
            check_readable("CERTIFICATES", settings.certificates.user_dir, reader, name, secret=True)
        found.append("CERTIFICATES")
    if settings.hub_token is not None:
        check_readable("HF_TOKEN_FILE", settings.hub_token, reader, secret=True)
        found.append("HF_TOKEN_FILE")
    return f"{reader} can read {' and '.join(found)}" if found else "neither CERTIFICATES nor HF_TOKEN_FILE is set"


def check_dataset(folder: Path, reader: Reader) -> None:
    """Check that the fleet can read a dataset's parquet files, or all files where the app reads others.

    Where there are parquet files, the others may be private: for example the `lost+found` of a disk.

    Raises:
        SettingError: It cannot read one of them.
    """
    parquet = any(folder.rglob("*.parquet"))
    check_readable("DATASET", folder, reader, "*.parquet" if parquet else "*")


def check_ca_bundle(environment: Mapping[str, str] = os.environ) -> None:
    """Check that the file with CA certificates for image builds exists; Compose would name it by its secret only.

    Raises:
        SettingError: It does not exist.
    """
    bundle = environment.get("SSL_CERT_FILE")
    if bundle and not (PROJECT / bundle).is_file():
        raise SettingError("SSL_CERT_FILE", bundle, "there is no such file", "correct it, or leave SSL_CERT_FILE out")
