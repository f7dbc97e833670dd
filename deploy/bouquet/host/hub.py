"""A probe of the dataset hub: whether it answers, and how far this machine's clock is from its clock."""

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

TIMEOUT_SECONDS = 5.0
DATASET_PATH = "/api/datasets/uoft-cs/cifar10"


@dataclass(frozen=True)
class HubAnswer:
    """What the probe found.

    Attributes:
        problem: Why the hub cannot be used; empty where it answers.
        clock_ahead_seconds: Seconds by which this machine's clock is ahead of the hub's; None where that is unknown.
    """

    problem: str = ""
    clock_ahead_seconds: float | None = None


def probe_hub(offline: bool = False, url: str | None = None) -> HubAnswer:
    """Ask the hub once, with one HEAD request.

    The request goes through the client of huggingface_hub, because that library loads the datasets. The client knows
    proxies, offline mode and `HF_ENDPOINT`. The library's own functions do not return the `Date` header.

    Args:
        offline: Whether `HF_HUB_OFFLINE` forbids the request.
        url: What to request; None for the dataset's page on `HF_ENDPOINT`.
    """
    if offline:
        return HubAnswer("HF_HUB_OFFLINE=1")
    # Imported here: the import takes 0.1 s, and it reads the environment, which `.env` has to be in.
    import httpx  # noqa: PLC0415
    from huggingface_hub import constants, get_session  # noqa: PLC0415
    from huggingface_hub.errors import OfflineModeIsEnabled  # noqa: PLC0415

    try:
        response = get_session().head(url or f"{constants.ENDPOINT}{DATASET_PATH}", timeout=TIMEOUT_SECONDS)
    except OfflineModeIsEnabled:
        return HubAnswer("huggingface_hub is in offline mode")
    except (OSError, httpx.HTTPError) as error:
        return HubAnswer(f"the hub does not answer ({error or type(error).__name__})")
    if response.is_error:
        return HubAnswer(f"the hub does not answer ({response.status_code} {response.reason_phrase})")
    date = response.headers.get("Date")
    return HubAnswer("", time.time() - parsedate_to_datetime(date).timestamp() if date else None)
