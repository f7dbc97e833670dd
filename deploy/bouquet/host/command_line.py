"""The command line of `bouquet`: its subcommands, their arguments, and what they call."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dotenv import load_dotenv

from bouquet.host import join
from bouquet.host.command_help import EPILOG, HELP, INTRODUCTION
from bouquet.host.commands import COMMANDS, SWARM_ACTIONS
from bouquet.host.join import JoinOptions
from bouquet.host.kubernetes import OPTION
from bouquet.host.nodes import NodeChange
from bouquet.runtime import grpc_proxy
from bouquet.settings.host import PROJECT, HostSettings

APP_HELP = "the folder of a Flower App; wins over APP; default: the app in this checkout"


class _ShowVersion(argparse.Action):
    """Prints the version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version  # noqa: PLC0415  the import is slow, and only this option needs it

        print(f"bouquet {version('bouquet')}")
        parser.exit()


def _run_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("app", nargs="?", metavar="PATH", help=f"{APP_HELP}; or the file of a bundle")
    command.add_argument(
        "--run-config",
        action="append",
        metavar="'KEY=VALUE ...'",
        help="overrides of the app's run-config, as `flwr run --run-config` takes them; wins over RUN_CONFIG",
    )


def _bundle_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("app", nargs="?", metavar="PATH", help=APP_HELP)
    command.add_argument("--output", type=Path, metavar="FILE", help="default: NAME-VERSION.bundle.tar, here")
    command.add_argument(
        "--dataset", dest="cache", type=Path, metavar="FOLDER", help="a Hugging Face cache to put into the bundle"
    )


def _kubernetes_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        OPTION,
        nargs="?",
        const="",
        metavar="[NAMESPACE/]RELEASE",
        help="a fleet that the Helm chart has installed; without a name: the only one in kubectl's namespace",
    )


def _dataset_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("names", nargs="+", metavar="NAME", help="a dataset of the hub, or NAME:CONFIG")


def _join_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--nodes", type=int, default=1, metavar="N", help="how many nodes; default: 1")
    command.add_argument("--engine", choices=join.ENGINES, default="docker", help="default: docker")
    command.add_argument("--name", help="name of the node, or NAME-1 and so on; default: from its key")
    command.add_argument("--image", help="the image there; default: the name of this fleet's image")


def _nodes_arguments(command: argparse.ArgumentParser) -> None:
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


def _swarm_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=[*SWARM_ACTIONS], help="what to do; see above")
    command.add_argument("hosts", nargs="*", metavar="HOST", help="a Docker endpoint to load images into: ssh://NAME")
    command.add_argument("--registry", metavar="NAME", help="push the images there, and let the hosts pull them")
    command.add_argument("--images", metavar="TAG", help="images that the hosts have already; nothing is built")


ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "run": _run_arguments,
    "bundle": _bundle_arguments,
    "connection": _kubernetes_argument,
    "results": _kubernetes_argument,
    "dataset": _dataset_arguments,
    "join-command": _join_arguments,
    "nodes": _nodes_arguments,
    "swarm": _swarm_arguments,
}
"""What adds the arguments of a command; the others have none."""


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
        if name in ARGUMENTS:
            ARGUMENTS[name](command)
    return parser


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
    COMMANDS[parsed.command](settings, *getattr(parsed, "names", ()), **_options(parsed))


def _options(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the command's function, by name."""
    if parsed.command == "swarm":
        return {name: getattr(parsed, name) for name in ("action", "hosts", "registry", "images")}
    if parsed.command == "join-command":
        return {"joining": JoinOptions(parsed.nodes, parsed.engine, parsed.name, parsed.image)}
    if parsed.command == "nodes" and parsed.action is not None:
        return {"change": NodeChange(parsed.action, parsed.node, getattr(parsed, "new_name", ""))}
    return {name: getattr(parsed, name) for name in ("output", "cache", "kubernetes") if name in parsed}
