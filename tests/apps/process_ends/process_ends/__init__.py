"""Leaves work to the end of its process, and does what may be done once per process."""
