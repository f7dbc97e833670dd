"""Whether there is space on the disks that the fleet writes to."""

from bouquet.host import preflight
from bouquet.settings.host import PROJECT


def disk() -> str:
    """Check that the images, or the Python environment, and a run fit on the disk."""
    preflight.check_disk(PROJECT)
    return f"at least {preflight.NEEDED_GIB} GiB free under {PROJECT}"
