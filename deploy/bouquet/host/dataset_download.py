"""`bouquet dataset`: fills a Hugging Face cache, to bring it to a machine that cannot reach the hub."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bouquet.errors import HostError, SettingError
from bouquet.executor import hub_access
from bouquet.runtime.hub_cache import PARTS
from bouquet.settings.host import HostSettings

UMASK = 0o022
"""Of the downloaded files: the containers' user reads them."""


def download(names: Sequence[str], cache: Path, settings: HostSettings) -> Iterator[str]:
    """Download datasets as `datasets.load_dataset` does, so that they load without the hub; yield a line for each.

    Args:
        names: Their names on the hub, or `NAME:CONFIG`.
        cache: The folder, laid out as `HF_HOME`.
        settings: Whether the hub may be asked, and with which token.

    Raises:
        SettingError: `HF_HUB_OFFLINE` forbids it, or the cache cannot be written.
        HostError: The hub does not answer, or it does not have one of them.
    """
    if settings.offline:
        raise SettingError("HF_HUB_OFFLINE", 1, "a dataset comes from the hub", "leave HF_HUB_OFFLINE out")
    _use(cache, settings)
    os.umask(UMASK)
    hub_access.watch()
    for name in names:
        yield f"downloading {name} to {cache}"
        _download(name, cache)


def _download(dataset: str, cache: Path) -> None:
    # Imported here: the import takes a second, and it reads the environment.
    import datasets  # noqa: PLC0415

    name, _, config = dataset.partition(":")
    try:
        datasets.load_dataset(name, config or None)
    except hub_access.DatasetUnavailableError as error:
        raise HostError(error.message, "run this command where the hub answers, and bring the folder here") from error
    except PermissionError as error:
        hint = "give yourself write access, or set HF_CACHE to another folder"
        raise SettingError("HF_CACHE", cache, f"{error.filename} cannot be written", hint) from error
    except Exception as error:  # the library's own: no such dataset, several configurations, a download that ended
        problem = " ".join(str(error).split())[:500]
        hint = "correct the name, or name a configuration (NAME:CONFIG); HF_TOKEN_FILE is for datasets with a login"
        raise HostError(f"dataset {dataset}: {problem}", hint) from error


def _use(cache: Path, settings: HostSettings) -> None:
    """Have the libraries use this cache, with the user's token."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    token = settings.hub_token or os.environ.get("HF_TOKEN_PATH") or home / "token"
    os.environ.update({"HF_HOME": str(cache), "HF_TOKEN_PATH": str(token)})
    os.environ.update({f"HF_{part.upper()}_CACHE": str(cache / part) for part in PARTS})
