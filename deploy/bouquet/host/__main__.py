"""`python -m bouquet.host <command>` is the same as `bouquet <command>`."""

from bouquet.host.commands import entry

entry()
