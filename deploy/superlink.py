"""Entry point of the SuperLink: settings from the environment, a command line, then `exec`."""

from deploy import handshakes
from deploy.certificates import CA, SERVER, SERVER_KEY
from deploy.entry import become, concrete, report, warn_of_insecurity
from deploy.errors import FleetError
from deploy.settings import SuperLinkSettings


def command_line(settings: SuperLinkSettings) -> list[str]:
    """Return the arguments of `flower-superlink`."""
    return [
        *security(settings),
        "--fleet-api-address",
        settings.fleet_address,
        "--control-api-address",
        settings.control_address,
        "--serverappio-api-address",
        concrete(settings.runtime_address),
        "--database",
        str(settings.directories.state / "superlink.db"),
        "--disable-runtime-dependency-installation",
    ]


def security(settings: SuperLinkSettings) -> list[str]:
    """Return the arguments for TLS and the authentication of SuperNodes, or for neither."""
    if settings.insecure:
        return ["--insecure"]
    files = {"--ssl-ca-certfile": CA, "--ssl-certfile": SERVER, "--ssl-keyfile": SERVER_KEY}
    server = settings.directories.server
    for name in files.values():
        if not (server / name).exists():
            raise FleetError(
                f"{server / name} is missing: there is no certificate for the SuperLink",
                "let `python -m deploy.certificates` make one, as docker compose up does by its service `certificates`",
            )
    options = (word for option, name in files.items() for word in (option, str(server / name)))
    return ["--enable-supernode-auth", *options]


def main() -> None:
    """Check the settings and become the process that runs `flower-superlink`."""
    settings = SuperLinkSettings.read()
    settings.directories.state.mkdir(parents=True, exist_ok=True)
    if settings.insecure:
        warn_of_insecurity()
    else:
        handshakes.tell()
    become("deploy.serve", ["superlink", *command_line(settings)])


if __name__ == "__main__":
    report(main)
