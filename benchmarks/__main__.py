"""Measure, in one go on one machine, and say so as a table, as JSON and as a plot: `make bench`.

The arithmetic alone, our fleet (first run after a start, the same with decoded partitions kept, a warm run), the
stock executor on the same images, Flower's simulation; then round trips of a message that asks for nothing, and
what an idle fleet costs. Benchmarks report; nothing here fails for being slow.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bouquet.errors import report_errors
from bouquet.host.connection import NAME, write_connection
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.choose import choose_fleet
from bouquet.settings.host import PROJECT, HostSettings

from benchmarks.flwr import flwr, free_port, run_id, strategy_seconds
from benchmarks.machine import Cost, available, cpu_seconds
from benchmarks.report import ARITHMETIC, Measured, idle_table, plot, runs_table, trips_table
from benchmarks.simulation import simulation

NOOP = PROJECT / "tests" / "apps" / "noop"
RESULTS = PROJECT / "benchmarks" / "results.json"
PLOT = PROJECT / "benchmarks" / "bench.png"
ROUNDS = 3
IDLE_SECONDS = 60
BACKGROUND_SECONDS = 30


class Bench:
    """One benchmark: its fleets, its folder, what it has measured so far."""

    def __init__(self, folder: Path, dataset: Path) -> None:
        self.folder, self.dataset = folder, dataset
        self.measured: list[Measured] = []
        self.trips: list[dict[str, Any]] = []
        self.idle: dict[str, dict[str, float]] = {}
        self.baseline = available()
        self.background = _share(BACKGROUND_SECONDS)

    def fleet(self, executor: str, supernodes: int = 10, kind: str = "auto") -> Fleet:
        """Return a fleet of the benchmark's own: own project, ports and Flower home."""
        os.environ |= {
            "COMPOSE_PROJECT_NAME": "bouquet-bench",
            "BOUQUET_HOME": str(self.folder / "processes"),
            "FLWR_HOME": str(self.folder / "flwr"),
            "RESULTS": str(self.folder / "results"),
            "DATASET": str(self.dataset),
            "CONTROL_PORT": str(free_port()),
            "FLEET_PORT": str(free_port()),
            "SUPERNODES": str(supernodes),
            "UP_TIMEOUT": "900",
            "EXECUTOR": executor,
            "FLEET": kind,
        }
        self.settings = HostSettings.read()
        return choose_fleet(self.settings)[0]

    def up(self, fleet: Fleet) -> None:
        """Bring a fleet up, and make it the one that `flwr` talks to."""
        fleet.up()
        write_connection(f"127.0.0.1:{self.settings.control_port}", self.settings.flower_home, fleet.root_certificate())

    def arithmetic(self) -> None:
        """Measure the arithmetic alone, by Keras' `fit` and by the app's own loop."""
        environment = os.environ | {"BOUQUET_CACHE_DIR": str(self.folder / "cache")}
        for way, label in (("fit", ARITHMETIC), ("loop", "the same in this app's own loop")):
            command = [sys.executable, "-m", "benchmarks.arithmetic", way, str(self.dataset), "10", str(ROUNDS)]
            with Cost(self.baseline) as cost:
                done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
            said = json.loads(done.stdout.splitlines()[-1])
            self.note(Measured(label, said["seconds"], None, cost.cpu, cost.memory, said["eval_acc"]))

    def run(self, label: str, fleet: Fleet) -> None:
        """Measure a run on a fleet."""
        with Cost(self.baseline) as cost:
            output = flwr(os.environ, "run", ".", NAME, "--stream")
        fleet.collect_results(self.settings.results, run_id(output))
        self.note_run(label, output, self.settings.results / run_id(output), cost)

    def our_fleet(self) -> None:
        """Measure our fleet: first run, warm run, first run with partitions kept; idle, and round trips."""
        fleet = self.fleet("warm")
        fleet.down(volumes=True)
        self.up(fleet)
        try:
            self.run("first run after a start", fleet)
            self.run("warm run", fleet)
            fleet.down()
            self.up(fleet)
            self.run("first run, partitions kept", fleet)
            self.run("warm run", fleet)
            self.be_idle("warm", fleet)
            self.round_trips(10, "10 nodes")
        finally:
            fleet.down(volumes=True)

    def stock(self) -> None:
        """Measure Flower's own executor on the same images."""
        fleet = self.fleet("stock")
        self.up(fleet)
        try:
            self.run("stock executor", fleet)
            self.be_idle("stock", fleet)
        finally:
            fleet.down(volumes=True)

    def simulated(self) -> None:
        """Measure Flower's simulation of the same app."""
        folder = self.folder / "simulation"
        folder.mkdir(exist_ok=True)
        with simulation(folder, 10, self.dataset) as environment:
            with Cost(self.baseline) as cost:
                output = flwr(environment, "run", ".", "local", "--stream")
            self.note_run("Flower's simulation", output, folder / "results" / run_id(output), cost)

    def scale(self) -> None:
        """Measure round trips on one node and on fifty, as processes that preload nothing."""
        for supernodes in (1, 50):
            os.environ["EXECUTOR_PRELOAD"] = "flwr"
            fleet = self.fleet("warm", supernodes, "processes")
            try:
                self.up(fleet)
                self.round_trips(supernodes, f"{supernodes} node{'s' * (supernodes > 1)}, processes")
            finally:
                fleet.down(volumes=True)
                del os.environ["EXECUTOR_PRELOAD"]

    def round_trips(self, supernodes: int, label: str) -> None:
        """Measure messages that ask for nothing: to one node, and to all."""
        output = flwr(os.environ, "run", ".", NAME, "--stream", "--run-config", f"nodes={supernodes}", app=NOOP)
        match = re.search(r"noop (\{.*\})", output)
        if match is None:
            raise RuntimeError(f"the no-op app said nothing:\n{output}")
        said = json.loads(match[1])
        for what in ("one", "all"):
            self.trips.append({"fleet": label, **said[what]})
            print(f"  round trip, {label}: {said[what]}", flush=True)

    def be_idle(self, label: str, fleet: Fleet) -> None:
        """Measure what a fleet adds to the machine's own background while it has nothing to do."""
        fleet.members()
        time.sleep(5)
        share, memory = _share(IDLE_SECONDS) - self.background, self.baseline - available()
        self.idle[label] = {"cores": round(share, 4), "memory": memory}
        print(f"  idle, {label}: {share:.1%} of one core, {memory / 2**30:.1f} GiB", flush=True)

    def note_run(self, label: str, output: str, results: Path, cost: Cost) -> None:
        """Keep what a run took and what came of it."""
        last = json.loads((results / "metrics.json").read_text())["rounds"][-1]
        accuracy = last["evaluate"]["metrics"]["eval_acc"]
        self.note(Measured(label, strategy_seconds(output), cost.wall, cost.cpu, cost.memory, accuracy))

    def save(self) -> None:
        """Write what has been measured so far."""
        result = {
            "machine": f"{os.cpu_count()} cores ({platform.machine()}), {self.baseline / 2**30:.0f} GiB of memory free",
            "dataset": self.dataset.name,
            "rounds": ROUNDS,
            "runs": [measured.as_json() for measured in self.measured],
            "round-trips": self.trips,
            "idle": self.idle,
            "background": round(self.background, 4),
        }
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
        plot(self.measured, PLOT)

    def tables(self) -> str:
        """Return what has been measured so far as Markdown."""
        tables = (runs_table(self.measured), trips_table(self.trips), idle_table(self.idle))
        return "\n\n".join(table for table in tables if table)

    def note(self, measured: Measured) -> None:
        """Keep a measurement, and show it at once."""
        self.measured.append(measured)
        print(f"  {measured.label}: {measured.strategy:.1f} s", flush=True)


def _share(seconds: float) -> float:
    """Return how much of one core this machine spends, from now on for so many seconds."""
    began = cpu_seconds()
    time.sleep(seconds)
    return (cpu_seconds() - began) / seconds


def main() -> None:
    """Run the parts that are asked for, and report."""
    parts: dict[str, Callable[[Bench], None]] = {
        "arithmetic": Bench.arithmetic,
        "fleet": Bench.our_fleet,
        "stock": Bench.stock,
        "simulation": Bench.simulated,
        "scale": Bench.scale,
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="how often to go through the parts (default: 1)")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bouquet-bench-") as scratch:
        dataset = HostSettings.read().dataset or PROJECT / "data" / "cifar10-sample"
        bench = Bench(Path(scratch), dataset)
        for account in bench.fleet("warm").prepare():
            print(account, flush=True)
        for _ in range(arguments.repeats):
            for part in arguments.parts:
                parts[part](bench)
                if part in ("fleet", "stock"):
                    bench.arithmetic()  # in turn, since the machine's speed drifts
                bench.save()
    print(f"\n{bench.tables()}\n\n{RESULTS}\n{PLOT}")


report_errors(main)
