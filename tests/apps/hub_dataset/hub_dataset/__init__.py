"""Loads a dataset of the hub."""
