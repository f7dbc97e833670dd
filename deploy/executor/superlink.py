"""The process that `flower-superlink` runs in: started, and started anew, by the executor's (`host.superlink`)."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..flower.spool import Spool
from ..flower.superlink import Switchboard, run_superlink
from .channel import Channel
from .linux import die_with_parent, name_process


def main() -> None:
    """Run it: `python -m deploy.executor.superlink ... -- <arguments of flower-superlink>`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--first", action="store_true")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    die_with_parent(options.parent)
    name_process("flower-superlink")
    executor = Channel.of(options.channel)

    def tell(message: dict[str, Any]) -> None:
        with suppress(OSError):  # it is ending, and so is this process
            executor.send(message)

    board = Switchboard(
        on_serving=lambda: tell({"serving": True}),
        on_task=lambda: tell({"task": True}),
        on_run_ended=lambda run_id: tell({"ended": run_id}),
    )
    sys.argv = ["flower-superlink", *options.arguments, "--isolation", "process"]
    run_superlink(board, Spool(options.spool), first=options.first)


if __name__ == "__main__":
    main()
