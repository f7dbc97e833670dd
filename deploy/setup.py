"""The one-shot service `setup`: writes how large the fleet is to be, and ends."""

from deploy.entry import report
from deploy.settings import SetupSettings
from deploy.size import write_size


def main() -> None:
    """Check the settings and write the size."""
    settings = SetupSettings.read()
    write_size(settings.size_file, settings.supernodes)


if __name__ == "__main__":
    report(main)
