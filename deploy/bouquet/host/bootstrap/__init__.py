"""Prepares a machine for a fleet of containers: the base image, and Docker's Compose and buildx plugins."""
