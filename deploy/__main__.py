"""`python -m deploy <command>`."""

from deploy.cli import entry

entry()
