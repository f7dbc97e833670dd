"""What runs a Flower App on a fleet: entry points, launchers, health, preflight."""
