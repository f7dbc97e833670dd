"""The child process that runs Flower's SuperLink; `serve_superlink` restarts it when it crashes.

`python -m bouquet.superlink.flower_process ... -- <arguments of flower-superlink>`
"""

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from bouquet.executor.channel import Channel
from bouquet.executor.linux import die_with_parent, name_process, share_freed_memory
from bouquet.flower.message_files import MessageFiles
from bouquet.flower.superlink_events import SuperLinkEvents
from bouquet.flower.superlink_main import SuperLinkParts, run_superlink
from bouquet.runtime.health import keep_pulsing
from bouquet.settings.superlink import FlowerProcessSettings
from bouquet.superlink.node_records import NodeRecords
from bouquet.superlink.partition_map import PartitionMap


def main() -> None:
    """Run Flower's SuperLink, and report its events to the parent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--message-files", type=Path, required=True)
    parser.add_argument("--large-files", type=Path, required=True)
    parser.add_argument("--first", action="store_true")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    die_with_parent(options.parent)
    name_process("flower-superlink")
    share_freed_memory()
    parent = Channel.from_descriptor(options.channel)

    def report(message: dict[str, Any]) -> None:
        with suppress(OSError):  # the parent is ending, and so is this process
            parent.send(message)

    def serving() -> None:
        report({"serving": True})
        keep_pulsing(lambda: report({"alive": True}), events.is_responsive)

    events = SuperLinkEvents(
        on_serving=serving,
        on_task=lambda: report({"task": True}),
        on_run_ended=lambda run_id: report({"ended": run_id}),
    )
    sys.argv = ["flower-superlink", *options.arguments, "--isolation", "process"]
    files = MessageFiles(options.message_files, options.large_files)
    settings = FlowerProcessSettings.read()
    partitions = PartitionMap(
        options.run_dir, settings.directories.state, settings.size_file, settings.expected_supernodes
    )
    parts = SuperLinkParts(
        run_dir=options.run_dir,
        partitions=partitions,
        records=NodeRecords(settings.directories.state),
        seed=settings.seed(),
        control_socket=settings.control_socket,
        first=options.first,
    )
    run_superlink(events, files, parts)


if __name__ == "__main__":
    main()
