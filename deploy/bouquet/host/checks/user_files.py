"""Whether the fleet can read the user's own files: the dataset, certificates, and the hub's token."""

from bouquet.contract.tls_files import CA, SERVER, SERVER_KEY
from bouquet.host.readable import Reader, check_readable
from bouquet.settings.host import HostSettings


def user_files(settings: HostSettings, reader: Reader) -> str:
    """Check that the fleet can read the files that settings name.

    Raises:
        SettingError: It cannot read one of them.
    """
    found = []
    if settings.dataset is not None:
        # The parquet files only: others, such as a `lost+found`, may be private. All files, if the app reads others.
        parquet = any(settings.dataset.rglob("*.parquet"))
        check_readable("DATASET", settings.dataset, reader, "*.parquet" if parquet else "*")
        found.append("DATASET")
    if settings.certificates.user_dir is not None:
        for name in (CA, SERVER, SERVER_KEY):
            check_readable("CERTIFICATES", settings.certificates.user_dir, reader, name, secret=True)
        found.append("CERTIFICATES")
    if settings.hub_token is not None:
        check_readable("HF_TOKEN_FILE", settings.hub_token, reader, secret=True)
        found.append("HF_TOKEN_FILE")
    return f"{reader} can read {', '.join(found)}" if found else "no DATASET, CERTIFICATES or HF_TOKEN_FILE is set"
