"""The secrets of a stack: its CA, and the seed of its nodes' keys. They are created once and never overwritten."""

import tempfile
from pathlib import Path

from bouquet.contract.tls_files import CA, CA_KEY
from bouquet.errors import FleetError
from bouquet.host.swarm.docker_swarm import ask, change
from bouquet.host.swarm.stack_names import SECRETS
from bouquet.oneshot.authority import SEED, make_secrets

FILES = {"seed": SEED, "ca_key": CA_KEY, "ca_crt": CA}
"""The file in which each secret is made."""


def ensure_secrets(stack: str) -> list[str]:
    """Create the secrets that are missing; return the names of those created.

    The files are in a folder that only this user can enter, and are removed at once: afterwards only Swarm has them.

    Raises:
        FleetError: The CA's key exists without its certificate, or the reverse; or Docker fails.
    """
    existing = set(ask("secret", "ls", "--format", "{{.Name}}").split())
    names = {each: f"{stack}_{each}" for each in SECRETS}
    ours = {each for each, name in names.items() if name in existing}
    if len(ours & {"ca_key", "ca_crt"}) == 1:
        there, missing = ("ca_key", "ca_crt") if "ca_key" in ours else ("ca_crt", "ca_key")
        raise FleetError(
            f"the secret {names[there]} exists, but {names[missing]} does not",
            f"create it again, or remove the other one, and a new CA is created: docker secret rm {names[there]}",
        )
    created = [each for each in SECRETS if each not in ours]
    with tempfile.TemporaryDirectory() as scratch:
        if created:
            make_secrets(Path(scratch))
        for each in created:
            change("secret", "create", names[each], str(Path(scratch) / FILES[each]))
    return [names[each] for each in created]


def remove_secrets(stack: str) -> None:
    """Remove the secrets of a stack that is down; those that do not exist are no error."""
    existing = set(ask("secret", "ls", "--format", "{{.Name}}").split())
    if ours := [f"{stack}_{each}" for each in SECRETS if f"{stack}_{each}" in existing]:
        change("secret", "rm", *ours)
