"""Prepares a machine: the Python environment of a checkout, the base image, and Docker's Compose and buildx plugins."""
