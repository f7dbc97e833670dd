"""Creates the Secrets of a fleet in Kubernetes: the chart's hook runs it before each install and upgrade.

`python -m bouquet.oneshot.kubernetes_secrets` creates a Secret only where there is none of its name:

    authority   ca.key, ca.crt   the SuperLink issues its certificate with them
    ca          ca.crt           SuperNodes verify the SuperLink with it
    seed        seed             SuperNodes derive their private keys from it

No Secret is ever changed: the API server refuses to create one that exists, so two hooks at the same time agree too.
"""

import base64
import json
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from bouquet.contract.tls_files import CA, CA_KEY
from bouquet.errors import FleetError, report_errors
from bouquet.oneshot.authority import SEED, new_seed
from bouquet.oneshot.certificates import new_authority
from bouquet.settings.oneshot import KubernetesSecretSettings

REQUEST_SECONDS = 30.0
Content = Mapping[str, bytes]


class KubernetesApi:
    """The Secrets of this pod's namespace, by the API server that every pod knows.

    Args:
        url: Address of the API server.
        service_account: The folder with this pod's `token`, `ca.crt` and `namespace`.
    """

    def __init__(self, url: str, service_account: Path) -> None:
        self._folder = service_account
        namespace = (service_account / "namespace").read_text().strip()
        self._secrets = f"{url}/api/v1/namespaces/{namespace}/secrets"
        self._context = ssl.create_default_context(cafile=str(service_account / "ca.crt"))

    def read(self, name: str) -> Content | None:
        """Return the content of a Secret by key; None if there is no such Secret.

        Raises:
            FleetError: The API server does not answer, or refuses.
        """
        try:
            answer = self._call("GET", f"{self._secrets}/{name}", None)
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise _refused(f"read Secret {name}", error) from error
        return {key: base64.b64decode(value) for key, value in (answer.get("data") or {}).items()}

    def create(self, name: str, content: Content, labels: Mapping[str, str]) -> bool:
        """Create a Secret; return False, and change nothing, if there is one of this name.

        Raises:
            FleetError: The API server does not answer, or refuses.
        """
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": dict(labels)},
            "type": "Opaque",
            "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
        }
        try:
            self._call("POST", self._secrets, body)
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.CONFLICT:
                return False
            raise _refused(f"create Secret {name}", error) from error
        return True

    def _call(self, method: str, url: str, body: Any) -> Any:
        token = (self._folder / "token").read_text().strip()  # Kubernetes replaces it from time to time
        request = urllib.request.Request(  # noqa: S310  always https
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )
        try:
            with opener.open(request, timeout=REQUEST_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise FleetError(
                f"the API server does not answer at {url} ({reason})",
                "allow this pod to reach it: a NetworkPolicy of yours may forbid it",
            ) from error


def _refused(what: str, error: urllib.error.HTTPError) -> FleetError:
    try:
        reason = json.load(error)["message"]
    except (ValueError, LookupError, TypeError):
        reason = error.reason
    hint = "check the Role of the chart's hook, and policies of the cluster; or create the Secrets yourself"
    return FleetError(f"the API server refused to {what}: {error.code} {reason}", hint)


def ensure_secrets(api: KubernetesApi, settings: KubernetesSecretSettings) -> list[str]:
    """Create the Secrets that are missing; return what was found or done, one line for each Secret.

    Raises:
        FleetError: The API server refuses, or two Secrets do not fit.
    """
    lines = []
    if settings.authority and settings.ca:
        lines.append(_ensure(api, settings.authority, _new_authority, settings.labels))
        # What counts is what the API server has: another hook may have created it meanwhile.
        certificate = _content(api, settings.authority, CA)
        lines.append(_ensure(api, settings.ca, lambda: {CA: certificate}, settings.labels))
        if _content(api, settings.ca, CA) != certificate:
            raise FleetError(
                f"Secret {settings.ca} has another CA than Secret {settings.authority}, so no SuperNode would trust "
                "the SuperLink",
                f"delete the one that is wrong, usually {settings.ca}, and repeat; then restart the SuperNodes",
            )
    if settings.seed:
        lines.append(_ensure(api, settings.seed, lambda: {SEED: new_seed()}, settings.labels))
    return lines


def _ensure(api: KubernetesApi, name: str, new: Callable[[], Content], labels: Mapping[str, str]) -> str:
    if api.read(name) is None and api.create(name, new(), labels):
        return f"Secret {name}: created"
    return f"Secret {name}: exists, unchanged"


def _content(api: KubernetesApi, name: str, key: str) -> bytes:
    found = api.read(name) or {}
    if not found.get(key):
        raise FleetError(f"Secret {name} has no {key}", f"delete it, so that a new one is created: {name}")
    return found[key]


def _new_authority() -> Content:
    with tempfile.TemporaryDirectory() as folder:
        new_authority(Path(folder))
        return {name: (Path(folder) / name).read_bytes() for name in (CA_KEY, CA)}


def main() -> None:
    """Create the Secrets that are missing, and log what was found or done."""
    settings = KubernetesSecretSettings.read()
    for line in ensure_secrets(KubernetesApi(settings.url, settings.service_account), settings):
        sys.stderr.write(f"bouquet: {line}\n")


if __name__ == "__main__":
    report_errors(main)
