"""The SuperLink: its entry point, the process that serves, and the child that runs Flower."""
