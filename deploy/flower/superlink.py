"""`flower-superlink`, which declares its container ready once all three of its APIs accept."""

from flwr.superlink.cli import flower_superlink

from deploy.flower.readiness import SUPERLINK_READY, when_logged
from deploy.probe import Readiness
from deploy.settings import Directories

if __name__ == "__main__":
    when_logged(SUPERLINK_READY, Readiness(Directories.read().run).declare)
    flower_superlink()
