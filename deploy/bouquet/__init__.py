"""Bouquet: Flower Apps on a real fleet of containers. docs/architecture.md says what each package is for."""
