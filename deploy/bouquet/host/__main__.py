"""`python -m bouquet.host <command>` is the same as `bouquet <command>`."""

from bouquet.host.entry_point import entry

entry()
