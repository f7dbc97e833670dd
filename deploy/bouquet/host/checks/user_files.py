"""Whether the fleet can read the user's own files: datasets, certificates, the hub's token, the node config."""

import os
from collections.abc import Mapping
from pathlib import Path

from bouquet.contract.tls_files import CA, SERVER, SERVER_KEY
from bouquet.errors import SettingError
from bouquet.host.readable import Reader, check_readable
from bouquet.runtime.hub_cache import PARTS, is_cache
from bouquet.settings.host import PROJECT, HostSettings


def user_files(settings: HostSettings, reader: Reader) -> str:
    """Check that the fleet can read the certificates, the token, the cache and the node config that settings name.

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
    if settings.hf_cache is not None:
        check_hf_cache(settings.hf_cache, reader)
        found.append("HF_CACHE")
    if settings.node_config.file is not None:
        check_readable("NODE_CONFIG_FILE", settings.node_config.file, reader)
        found.append("NODE_CONFIG_FILE")
    if not found:
        return "none is set: CERTIFICATES, HF_TOKEN_FILE, HF_CACHE, NODE_CONFIG_FILE"
    return f"{reader} can read {' and '.join(found)}"


def check_hf_cache(cache: Path, reader: Reader) -> None:
    """Check that a Hugging Face cache is one, and that the fleet can read its data; its other files may be private.

    Raises:
        SettingError: It is none, or the fleet cannot read one of its files.
    """
    if not is_cache(cache):
        problem = "there is no such folder" if not cache.is_dir() else "has neither a folder datasets nor a folder hub"
        hint = "give a folder as HF_HOME is; fill it where the hub answers: bouquet dataset NAME"
        raise SettingError("HF_CACHE", cache, problem, hint)
    for part in PARTS:
        check_readable("HF_CACHE", cache, reader, part)
        if (cache / part).is_dir():
            check_readable("HF_CACHE", cache / part, reader)


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
