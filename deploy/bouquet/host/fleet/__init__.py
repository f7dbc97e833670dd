"""Fleets: one launcher per module."""
