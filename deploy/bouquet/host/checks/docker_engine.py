"""Docker and its plugins."""

from bouquet.errors import HostError
from bouquet.host.bootstrap import compose_plugin
from bouquet.host.fleet.choose import HUNG_HINT
from bouquet.probing import probe


def docker() -> str:
    """Check that Docker's daemon answers; return its version."""
    answer = probe(["docker", "version", "--format", "{{.Server.Version}}"], HUNG_HINT)
    if answer.returncode:
        raise HostError(f"Docker: {answer.stderr.strip()}", "start Docker, or give this user permission to use it")
    return f"{answer.stdout.strip()} answers"


def compose() -> str:
    """Check that Compose v2 and buildx are installed, or that `bouquet up` can install them."""
    if not (missing := compose_plugin.missing_plugins()):
        return "v2 and buildx found"
    compose_plugin.check_installable(missing)
    return f"{' and '.join(missing)} missing: `make up` installs them from Debian 13's packages"
