"""Bundles: one file with images, an app and its data, for a site without a network (docs/bundles.md)."""
