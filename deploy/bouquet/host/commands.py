"""The commands behind the Makefile: `python -m deploy <command>`."""

import argparse
import sys
from collections.abc import Callable

from dotenv import load_dotenv

from bouquet.errors import FleetError, HostError, report_errors
from bouquet.gpu import nvidia
from bouquet.gpu import plan as gpu
from bouquet.host import join, preflight
from bouquet.host.connection import read_config, write_connection
from bouquet.host.doctor import checks, examine
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.choose import choose_fleet
from bouquet.host.run import submit, summary
from bouquet.host.status import look, table
from bouquet.oneshot.certificates import check_user_certificates
from bouquet.settings.env import INSECURE_WARNING
from bouquet.settings.host import PROJECT, HostSettings


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
        say(f"WARNING: {INSECURE_WARNING}")
    elif settings.certificates.user_dir:
        check_user_certificates(settings.certificates.user_dir, settings.certificates.user_dir_label)
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
    """Show each member of the fleet and what it does; fail where it is down."""
    view = look(choose_fleet(settings)[0], settings.flower_home)
    if not view.members:
        raise FleetError("the fleet is down", "start it: make up")
    print(table(view))


def results(settings: HostSettings) -> None:
    """Bring the results of all runs to `results/`."""
    choose_fleet(settings)[0].collect_results(settings.results)


def doctor(settings: HostSettings) -> None:
    """Say of each thing that the fleet needs whether it is there, or what to do."""
    findings = []
    for finding in examine(checks(settings)):
        print(finding, flush=True)
        findings.append(finding)
    if wrong := [finding.name for finding in findings if not finding.ok]:
        raise HostError(f"{len(wrong)} of {len(findings)} are wrong: {', '.join(wrong)}", "do what their lines say")


def gpus(settings: HostSettings) -> None:
    """Print what each node would compute on, and why; a list given by hand needs no GPU here."""
    for line in gpu.summary(*nvidia.shares(settings.gpus, settings.supernodes)):
        print(line)


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
    for command in (run, up, down, logs, status, doctor, gpus, results, connection, join_command)
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
    report_errors(main)
