"""The commands behind the Makefile: `python -m deploy <command>`."""

import argparse
import sys
from collections.abc import Callable

from dotenv import load_dotenv

from deploy import join, preflight
from deploy.certificates import check_own
from deploy.connection import read_config, write_connection
from deploy.entry import INSECURITY, report
from deploy.errors import FleetError
from deploy.fleet import Fleet
from deploy.host import choose_fleet
from deploy.run import submit, summary
from deploy.settings import PROJECT, HostSettings


def say(line: str) -> None:
    """Print one line of what the command does and why."""
    print(f"bouquet: {line}", flush=True)


def run(settings: HostSettings) -> None:
    """Bring the fleet up, run the app on it, and show what came of it."""
    fleet = up(settings)
    ended = submit(settings.run_config)
    fleet.collect_results(settings.results, ended.run_id)
    print(f"\n{summary(settings.results, ended)}\n\nthe fleet stays up for the next run; stop it with: make down")


def up(settings: HostSettings) -> Fleet:
    """Bring the fleet up, healthy, with a connection to it."""
    fleet, why = choose_fleet(settings)
    say(f"the fleet is {settings.supernodes} SuperNodes as {why}")
    preflight.check_disk(PROJECT)
    if settings.dataset:
        say(f"dataset: {settings.dataset} (DATASET)")
    if settings.insecure:
        say(f"WARNING: {INSECURITY}")
    elif settings.certificates.own:
        check_own(settings.certificates.own, settings.certificates.own_shown)
    for account in fleet.prepare():
        say(account)
    if not fleet.members():
        preflight.check_ports(settings)
    fleet.up()
    say(f"{settings.supernodes} SuperNodes are healthy")
    _connect(settings, fleet)
    return fleet


def down(settings: HostSettings) -> None:
    """Stop the fleet; results, state and caches stay."""
    choose_fleet(settings)[0].down()


def logs(settings: HostSettings) -> None:
    """Follow the fleet's logs."""
    choose_fleet(settings)[0].logs(follow=True)


def status(settings: HostSettings) -> None:
    """Show each member of the fleet; fail where it is down."""
    members = choose_fleet(settings)[0].members()
    if not members:
        raise FleetError("the fleet is down", "start it: make up")
    print(f"{'name':<24} {'role':<10} {'partition-id':>12}  state")
    for member in members:
        partition_id = "-" if member.partition_id is None else member.partition_id
        print(f"{member.name:<24} {member.role:<10} {partition_id:>12}  {member.state}")


def results(settings: HostSettings) -> None:
    """Bring the results of all runs to `results/`."""
    choose_fleet(settings)[0].collect_results(settings.results)


def connection(settings: HostSettings) -> None:
    """Write the connection `local-deployment` for `flwr`."""
    _connect(settings, choose_fleet(settings)[0])


def _connect(settings: HostSettings, fleet: Fleet) -> None:
    read_config(settings.flower_home)  # what cannot be written to is refused before the fleet is asked
    path = write_connection(f"127.0.0.1:{settings.control_port}", settings.flower_home, fleet.root_certificate())
    say(f"connection `local-deployment` is in {path}")


def join_command(settings: HostSettings) -> None:
    """Enrol a SuperNode for another machine, and print the one command that starts it there."""
    join.check(settings)
    certificate = choose_fleet(settings)[0].root_certificate()
    if certificate is not None:
        command, account = join.command(settings, certificate)
        sys.stderr.write(f"bouquet: {account}\n")
        print(command)


COMMANDS: dict[str, Callable[[HostSettings], object]] = {
    command.__name__.replace("_", "-"): command
    for command in (run, up, down, logs, status, results, connection, join_command)
}


def main() -> None:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=(command.__doc__ or "").strip())
    arguments = parser.parse_args(sys.argv[1:])
    load_dotenv(PROJECT / ".env")  # as Compose does: the environment wins
    COMMANDS[arguments.command](HostSettings.read())


def entry() -> None:
    """Run `main`, errors in one line."""
    report(main)
