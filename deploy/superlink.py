"""Entry point of the SuperLink: settings from the environment, a command line, then `exec`."""

from deploy.entry import become, concrete, report
from deploy.settings import SuperLinkSettings


def command_line(settings: SuperLinkSettings) -> list[str]:
    """Return the arguments of `flower-superlink`."""
    return [
        "--insecure",
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


def main() -> None:
    """Check the settings and become the process that runs `flower-superlink`."""
    settings = SuperLinkSettings.read()
    settings.directories.state.mkdir(parents=True, exist_ok=True)
    become("deploy.serve", ["superlink", *command_line(settings)])


if __name__ == "__main__":
    report(main)
