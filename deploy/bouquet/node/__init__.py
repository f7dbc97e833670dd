"""The SuperNode: its entry point, its slot in the fleet, and the process that serves."""
