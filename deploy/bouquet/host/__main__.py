"""`python -m bouquet.host <command>`, the same as `bouquet <command>`."""

from bouquet.host.commands import entry

entry()
