"""A Flower App that writes files by relative paths."""
