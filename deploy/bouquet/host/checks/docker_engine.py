"""Docker and its plugins."""

import subprocess

from bouquet.errors import HostError
from bouquet.host.bootstrap import compose_plugin


def docker() -> str:
    """Check that Docker's daemon answers; return its version."""
    answer = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise HostError(f"Docker: {answer.stderr.strip()}", "start Docker, or give this user permission to use it")
    return f"{answer.stdout.strip()} answers"


def compose() -> str:
    """Check that Compose v2 and buildx are installed, or that `bouquet up` can install them."""
    if not (missing := compose_plugin.missing_plugins()):
        return "v2 and buildx found"
    compose_plugin.check_installable(missing)
    return f"{' and '.join(missing)} missing: `make up` installs them from Debian 13's packages"
