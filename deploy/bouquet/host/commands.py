"""The subcommands of `bouquet`, as functions of the settings."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

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


def entry() -> None:
    """Run the command line, for a `bouquet` script that an earlier version installed."""
    entry_point.entry()
