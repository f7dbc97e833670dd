"""`flower-superlink`, which declares its container ready once all three of its APIs accept."""

from flwr.superlink.cli import flower_superlink

from deploy import probe
from deploy.flower.readiness import SUPERLINK_READY, when_logged

if __name__ == "__main__":
    when_logged(SUPERLINK_READY, probe.declare_ready)
    flower_superlink()
