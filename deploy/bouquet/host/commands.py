"""The `bouquet` command and its subcommands."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dotenv import load_dotenv

from bouquet.errors import FleetError, HostError
from bouquet.gpu import nvidia
from bouquet.gpu import plan as gpu
from bouquet.host import entry_point, join, preflight
from bouquet.host.app_project import read_project
from bouquet.host.bundle.bundle_app import NOTHING_WRITTEN, bundle_app
from bouquet.host.bundle.opened import open_bundle
from bouquet.host.busy_fleet import refuse_other_packages
from bouquet.host.checks.flwr_connection import foreign_connection
from bouquet.host.checks.published_ports import check_ports
from bouquet.host.command_help import EPILOG, HELP, INTRODUCTION
from bouquet.host.connection import read_config, write_connection
from bouquet.host.dataset_download import download
from bouquet.host.doctor import run_checks, select_checks
from bouquet.host.endpoint import Endpoint
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.choose import choose_fleet
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.interrupts import explains_interrupt
from bouquet.host.join import JoinOptions
from bouquet.host.kubernetes import OPTION, KubernetesRelease
from bouquet.host.nodes import NodeChange, change_node, list_nodes, nodes_table
from bouquet.host.packages.package_list import UNKNOWN, PackageList, image_tag, package_list
from bouquet.host.results_folder import check_results
from bouquet.host.run import NOTHING_SUBMITTED, submit
from bouquet.host.run_summary import check_outcome, read_metrics, summary
from bouquet.host.start_lock import StartLock
from bouquet.host.status import read_status, status_table
from bouquet.oneshot.certificates import check_user_certificates
from bouquet.runtime import grpc_proxy
from bouquet.settings.env import INSECURE_WARNING
from bouquet.settings.host import PROJECT, HostSettings
from bouquet.settings.overrides import check_overrides
from bouquet.settings.swarm_settings import SwarmSettings, check_host

START_LOCK = StartLock()
STAYS_UP = "what has started of the fleet stays up; continue: make up; stop it: make down"


def say(line: str) -> None:
    """Print one line about what the command does, and why."""
    print(f"bouquet: {line}", flush=True)


def run(settings: HostSettings) -> None:
    """Start the fleet with the packages of an app, run the app on it, and show its results.

    Raises:
        RunError: The run was rejected, or did not complete.
    """
    if settings.app.is_file():
        _run_bundle(settings)
        return
    read_project(settings.app)  # refuse what is no app before anything starts
    overrides = check_overrides(settings.run_config, settings.app)
    fleet, endpoint = up(settings)
    _follow_run(settings, fleet, endpoint, overrides)


def _run_bundle(settings: HostSettings) -> None:
    """Start a fleet with the images of a bundle, run its app on it, and show its results."""
    with open_bundle(settings.app) as opened, opened.app() as app:
        opened.check_fits()
        say(f"{settings.app} is undamaged: {opened.description.name} {opened.description.version}")
        for name, value in opened.settings(settings.home).items():
            if not os.environ.get(name, "").strip():  # empty is as good as not set
                os.environ[name] = value
        settings = replace(HostSettings.read(), app=app, run_config=settings.run_config, fleet="containers")
        overrides = check_overrides(settings.run_config, app)
        say(opened.load_images())
        fleet, endpoint = up(settings, opened.packages(app))
        _follow_run(settings, fleet, endpoint, overrides)


def _follow_run(settings: HostSettings, fleet: Fleet, endpoint: Endpoint, overrides: str) -> None:
    """Run the app on a fleet that is up, and show its log, its results and its outcome."""
    with explains_interrupt(NOTHING_SUBMITTED):
        ended = submit(settings.app, overrides, endpoint, settings.flower_home, START_LOCK.release)
    with explains_interrupt(f"interrupted; run {ended.run_id} has ended; copy its results with: make results"):
        fleet.collect_results(settings.results, ended.run_id)
    folder = settings.results / ended.run_id
    print(f"\n{summary(folder)}\n\nthe fleet stays up for the next run; stop it with: make down", flush=True)
    check_outcome(ended, read_metrics(folder))


@explains_interrupt(f"interrupted; {STAYS_UP}")
def up(settings: HostSettings, packages: PackageList | None = None) -> tuple[Fleet, Endpoint]:
    """Start the fleet, wait until it is healthy, write the connection to it, and return both.

    Args:
        settings: The settings.
        packages: What the fleet's Python must have; None for the packages of the app.
    """
    START_LOCK.acquire(settings, say)
    fleet, why = choose_fleet(settings)
    say(f"the fleet is {settings.supernodes} SuperNodes as {why}")
    check_results(settings.results)
    packages = packages or package_list(settings.app, settings, gpus=fleet.uses_gpus(), python=fleet.python())
    refuse_other_packages(fleet, packages, settings)
    say(f"packages: {len(packages.names)} for the app in {packages.app} (list {packages.digest})")
    with_tag = replace(settings, tag=packages.images or image_tag(settings.tag, packages.digest))
    for line in preflight.check_start(with_tag, packages.names, containers=not isinstance(fleet, ProcessFleet)):
        say(line)
    if settings.dataset:
        say(f"dataset: {settings.dataset} (DATASET)")
    if settings.insecure:
        say(f"WARNING: {INSECURE_WARNING}")
    elif settings.certificates.user_dir:
        check_user_certificates(settings.certificates.user_dir, settings.certificates.user_dir_label)
    for line in fleet.prepare(packages):
        say(line)
    if not fleet.members():
        check_ports(settings)
    fleet.up()
    say(f"{settings.supernodes} SuperNodes are healthy")
    return fleet, _write_connection(settings, fleet)


@explains_interrupt("interrupted; a part of the fleet may still run; repeat: make down")
def down(settings: HostSettings) -> None:
    """Stop the fleet; results, state and caches stay."""
    choose_fleet(settings)[0].down()


def logs(settings: HostSettings) -> None:
    """Follow the fleet's logs."""
    choose_fleet(settings)[0].logs(follow=True)


def status(settings: HostSettings) -> None:
    """Show the state of each member of the fleet.

    Raises:
        FleetError: The fleet is down.
    """
    found = read_status(choose_fleet(settings)[0], settings.control_port, settings.flower_home)
    if not found.members:
        raise FleetError("the fleet is down", "start it: make up")
    print(status_table(found))


def results(settings: HostSettings, kubernetes: str | None) -> None:
    """Copy the results of all runs out of the fleet, or out of one in Kubernetes."""
    if kubernetes is None:
        choose_fleet(settings)[0].collect_results(settings.results)
        return
    KubernetesRelease(kubernetes).collect_results(settings.results)
    say(f"results are in {settings.results}")


def doctor(settings: HostSettings) -> None:
    """Check what the fleet needs of this machine, and show the result of each check.

    Raises:
        HostError: A check failed.
    """
    found = []
    for result in run_checks(select_checks(settings)):
        print(result, flush=True)
        found.append(result)
    if failed := [result.name for result in found if not result.ok]:
        problem = f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}"
        raise HostError(problem, "apply the fix at the end of each FAILED line")


def gpus(settings: HostSettings) -> None:
    """Show what each node would compute on, and why. A list in `GPUS` is planned without any GPU here."""
    for line in gpu.summary(*nvidia.shares(settings.gpus, settings.supernodes)):
        print(line)


def connection(settings: HostSettings, kubernetes: str | None) -> None:
    """Write the connection `local-deployment` for `flwr`; for a fleet in Kubernetes, also forward its port."""
    if kubernetes is None:
        _write_connection(settings, choose_fleet(settings)[0])
        return
    release = KubernetesRelease(kubernetes)
    _write_connection(settings, release)
    again = f"bouquet connection {OPTION} {kubernetes}".strip()
    with explains_interrupt(f"the port is no longer forwarded, and the fleet is as it was; forward it again: {again}"):
        release.forward(
            settings.control_port,
            lambda pod: say(
                f"127.0.0.1:{settings.control_port} is the Control API of {pod} until Ctrl-C; in another terminal: "
                "flwr run path/to/app local-deployment --stream"
            ),
            lambda pod: say(f"lost {pod}; waiting until it is back"),
        )


def _write_connection(settings: HostSettings, fleet: Fleet | KubernetesRelease) -> Endpoint:
    read_config(settings.flower_home)  # refuse an invalid file before asking the fleet for its certificate
    endpoint = Endpoint.of(fleet, settings.control_port)
    with suppress(LookupError):
        if problem := foreign_connection(settings.flower_home, endpoint):
            say(f"{problem}; it is written again")
    path = write_connection(endpoint.address, settings.flower_home, endpoint.root_certificate)
    say(f"connection `local-deployment` is in {path}")
    return endpoint


def bundle(settings: HostSettings, output: Path | None, cache: Path | None) -> None:
    """Write an app and all that it needs into one file, for a machine that has only Docker."""
    with explains_interrupt(NOTHING_WRITTEN):
        for line in bundle_app(settings, output, cache):
            say(line)


def join_command(settings: HostSettings, joining: JoinOptions) -> None:
    """Enrol SuperNodes for another machine, and print what starts them there."""
    join.check_options(settings, joining)
    fleet = choose_fleet(settings)[0]
    endpoint = Endpoint.of(fleet, settings.control_port)
    tag = fleet.tag() or image_tag(settings.tag, fleet.packages() or UNKNOWN)
    started_by, lines = join.enrol_remote_nodes(settings, joining, endpoint, tag)
    for line in lines:
        sys.stderr.write(f"bouquet: {line}\n")
    print(started_by)


def nodes(settings: HostSettings, change: NodeChange | None = None) -> None:
    """List all nodes that the SuperLink knows; name, remove or revoke one."""
    fleet = choose_fleet(settings)[0]
    endpoint = Endpoint.of(fleet, settings.control_port)
    if change is None:
        print(nodes_table(list_nodes(endpoint, fleet)))
        return
    for line in change_node(endpoint, fleet, change):
        say(line)


def dataset(settings: HostSettings, *names: str) -> None:
    """Fill a Hugging Face cache with datasets, for a fleet that cannot reach the hub."""
    cache = settings.hf_cache or PROJECT / "hf-cache"
    for line in download(names, cache, settings):
        say(line)
    say(f"use it, here or where you bring it: HF_CACHE={shlex.quote(str(cache))}")


def swarm(settings: HostSettings, action: str, hosts: Sequence[str], registry: str | None, images: str | None) -> None:
    """Deploy the fleet on the hosts of a Swarm, take it down, or bring its images to the hosts.

    Args:
        settings: The settings.
        action: One of `SWARM_ACTIONS`.
        hosts: Docker endpoints to bring the images to; empty for those of SWARM_HOSTS.
        registry: The registry to bring them through; None for SWARM_REGISTRY.
        images: The tag of images that the hosts have; None for SWARM_IMAGES, or to build them.

    Raises:
        SettingError: A host is not a Docker endpoint.
    """
    for host in hosts:
        check_host("HOST", host)
    set_before = settings.swarm
    in_swarm = SwarmSettings(
        hosts=tuple(hosts) or set_before.hosts,
        registry=(registry or set_before.registry).rstrip("/"),
        images=images or set_before.images,
    )
    settings = replace(settings, fleet="swarm", swarm=in_swarm)
    SWARM_ACTIONS[action](settings)


def _bring_images(settings: HostSettings) -> None:
    """Build the images for the app, and bring them to the hosts of a Swarm."""
    fleet, _ = choose_fleet(settings)
    packages = package_list(settings.app, settings, gpus=fleet.uses_gpus(), python=fleet.python())
    say(f"packages: {len(packages.names)} for the app in {packages.app} (list {packages.digest})")
    for line in fleet.prepare(packages):
        say(line)


SWARM_ACTIONS: dict[str, Callable[[HostSettings], object]] = {"deploy": up, "images": _bring_images, "down": down}

COMMANDS: dict[str, Callable[..., object]] = {
    command.__name__.replace("_", "-"): command
    for command in (
        *(run, up, down, logs, status, doctor, gpus, results, connection),
        *(join_command, nodes, swarm, bundle, dataset),
    )
}


class _ShowVersion(argparse.Action):
    """Prints the version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version  # noqa: PLC0415  the import is slow, and only this option needs it

        print(f"bouquet {version('bouquet')}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    raw = partial(argparse.RawDescriptionHelpFormatter, max_help_position=20)
    parser = argparse.ArgumentParser(prog="bouquet", description=INTRODUCTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name in COMMANDS:
        text = HELP[name]
        command = commands.add_parser(
            name, help=text.summary, description=text.description, epilog=text.epilog, formatter_class=raw
        )
        if name in ("run", "bundle"):
            command.add_argument(
                "app",
                nargs="?",
                metavar="PATH",
                help="the folder of a Flower App; wins over APP; default: the app in this checkout"
                + ("; or the file of a bundle" if name == "run" else ""),
            )
        if name == "bundle":
            command.add_argument("--output", type=Path, metavar="FILE", help="default: NAME-VERSION.bundle.tar, here")
            command.add_argument(
                "--dataset",
                dest="cache",
                type=Path,
                metavar="FOLDER",
                help="a Hugging Face cache to put into the bundle",
            )
        if name in ("connection", "results"):
            command.add_argument(
                OPTION,
                nargs="?",
                const="",
                metavar="[NAMESPACE/]RELEASE",
                help="a fleet that the Helm chart has installed; without a name: the only one in kubectl's namespace",
            )
        if name == "dataset":
            command.add_argument("names", nargs="+", metavar="NAME", help="a dataset of the hub, or NAME:CONFIG")
        if name == "join-command":
            command.add_argument("--nodes", type=int, default=1, metavar="N", help="how many nodes; default: 1")
            command.add_argument("--engine", choices=join.ENGINES, default="docker", help="default: docker")
            command.add_argument("--name", help="name of the node, or NAME-1 and so on; default: from its key")
            command.add_argument("--image", help="the image there; default: the name of this fleet's image")
        if name == "nodes":
            _add_changes(command)
        if name == "swarm":
            _add_swarm_arguments(command)
        if name == "run":
            command.add_argument(
                "--run-config",
                action="append",
                metavar="'KEY=VALUE ...'",
                help="overrides of the app's run-config, as `flwr run --run-config` takes them; wins over RUN_CONFIG",
            )
    return parser


def _add_changes(command: argparse.ArgumentParser) -> None:
    node = "a node's name, its id, or the start of its key's fingerprint"
    actions = command.add_subparsers(dest="action", metavar="CHANGE", title="changes; without one, list the nodes")
    naming = actions.add_parser("name", help="name a node")
    naming.add_argument("node", metavar="NODE", help=node)
    naming.add_argument("new_name", metavar="NAME", help="at most 40 lower-case letters, digits and -")
    for action, text in (
        ("remove", "remove a node that has left for good; its key is never accepted again"),
        ("revoke", "never accept the key of a node again; one that is online is cut off at once"),
    ):
        actions.add_parser(action, help=text).add_argument("node", metavar="NODE", help=node)


def _add_swarm_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=[*SWARM_ACTIONS], help="what to do; see above")
    command.add_argument("hosts", nargs="*", metavar="HOST", help="a Docker endpoint to load images into: ssh://NAME")
    command.add_argument("--registry", metavar="NAME", help="push the images there, and let the hosts pull them")
    command.add_argument("--images", metavar="TAG", help="images that the hosts have already; nothing is built")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the command line names.

    Args:
        arguments: The command line without the program's name; None for `sys.argv`.
    """
    parsed = make_parser().parse_args(arguments)
    load_dotenv(PROJECT / ".env")  # like Compose: the environment wins
    grpc_proxy.only_on_request()
    settings = HostSettings.read()
    os.environ["FLWR_HOME"] = str(settings.flower_home)  # `flwr` does not expand `~`
    if getattr(parsed, "app", None) is not None:
        settings = replace(settings, app=Path(parsed.app).expanduser().resolve())
    if getattr(parsed, "run_config", None) is not None:
        settings = replace(settings, run_config=" ".join(parsed.run_config).strip())
    names = ("output", "cache", "kubernetes")
    options = {name: getattr(parsed, name) for name in names if name in parsed}
    if parsed.command == "swarm":
        options |= {name: getattr(parsed, name) for name in ("action", "hosts", "registry", "images")}
    if parsed.command == "join-command":
        options["joining"] = JoinOptions(parsed.nodes, parsed.engine, parsed.name, parsed.image)
    if parsed.command == "nodes" and parsed.action is not None:
        options["change"] = NodeChange(parsed.action, parsed.node, getattr(parsed, "new_name", ""))
    COMMANDS[parsed.command](settings, *getattr(parsed, "names", ()), **options)


def entry() -> None:
    """Run the command line, for a `bouquet` script that an earlier version installed."""
    entry_point.entry()
