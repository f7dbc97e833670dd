"""Measure a run on this machine in several ways, and report tables, JSON and a plot: `make bench`.

It measures the arithmetic alone, our fleet (the first run after a start, the first run with decoded partitions kept, a
warm run), the stock executor on the same images, Flower's simulation, round trips of no-op messages, and the cost of an
idle fleet. A slow result is reported and does not fail the benchmark.
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

from benchmarks.flwr_command import final_accuracy, free_port, run_flwr, run_id, strategy_seconds
from benchmarks.machine import Cost, available, cpu_seconds
from benchmarks.report import ARITHMETIC, Measured, idle_table, plot, runs_table, trips_table
from benchmarks.simulation import simulation
from bouquet.errors import report_errors
from bouquet.host.connection import NAME, write_connection
from bouquet.host.fleet.base import Fleet
from bouquet.host.fleet.choose import choose_fleet
from bouquet.host.packages.package_list import package_list
from bouquet.settings.host import PROJECT, HostSettings

NOOP = PROJECT / "tests" / "apps" / "noop"
RESULTS = PROJECT / "benchmarks" / "results.json"
PLOT = PROJECT / "benchmarks" / "bench.png"
ROUNDS = 3
IDLE_SECONDS = 60
BACKGROUND_SECONDS = 30


class Bench:
    """One benchmark: its fleets, its folder and its measurements so far.

    Args:
        folder: A temporary folder for everything that the benchmark writes, except its results.
        dataset: The dataset that every run uses.

    Attributes:
        measured: The runs measured so far.
        trips: The round trips measured so far.
        idle: The cost of an idle fleet, by executor: ``cores`` (fraction of one core) and ``memory`` (bytes).
        baseline: Memory available before anything ran, in bytes.
        background: CPU use of the machine before anything ran, as a fraction of one core.
    """

    def __init__(self, folder: Path, dataset: Path) -> None:
        self.folder, self.dataset = folder, dataset
        self.measured: list[Measured] = []
        self.trips: list[dict[str, Any]] = []
        self.idle: dict[str, dict[str, float]] = {}
        self.baseline = available()
        self.background = _cores_used(BACKGROUND_SECONDS)

    def fleet(self, executor: str, supernodes: int = 10, kind: str = "auto") -> Fleet:
        """Return a fleet with its own Compose project, ports and Flower home, separate from the user's fleet."""
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

    def start(self, fleet: Fleet) -> None:
        """Build what the fleet needs, start it, and write the connection with which `flwr` reaches it."""
        packages = package_list(PROJECT, self.settings, gpus=fleet.uses_gpus(), python=fleet.python())
        for line in fleet.prepare(packages):
            print(line, flush=True)
        fleet.up()
        write_connection(f"127.0.0.1:{self.settings.control_port}", self.settings.flower_home, fleet.root_certificate())

    def arithmetic(self) -> None:
        """Measure the arithmetic alone, with Keras' `fit` and with the app's own loop."""
        environment = os.environ | {"BOUQUET_CACHE_DIR": str(self.folder / "cache")}
        for way, label in (("fit", ARITHMETIC), ("loop", "the same in this app's own loop")):
            command = [sys.executable, "-m", "benchmarks.arithmetic", way, str(self.dataset), "10", str(ROUNDS)]
            with Cost(self.baseline) as cost:
                done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
            printed = json.loads(done.stdout.splitlines()[-1])
            self.record(Measured(label, printed["seconds"], None, cost.cpu, cost.memory, printed["eval_acc"]))

    def run(self, label: str, fleet: Fleet) -> None:
        """Measure one run on a fleet that is up."""
        with Cost(self.baseline) as cost:
            output = run_flwr(os.environ, "run", ".", NAME, "--stream")
        fleet.collect_results(self.settings.results, run_id(output))
        self.record_run(label, output, cost)

    def our_fleet(self) -> None:
        """Measure our fleet: first run, warm run, first run with partitions kept, idle cost and round trips."""
        fleet = self.fleet("warm")
        fleet.down(volumes=True)
        self.start(fleet)
        try:
            self.run("first run after a start", fleet)
            self.run("warm run", fleet)
            fleet.down()
            self.start(fleet)
            self.run("first run, partitions kept", fleet)
            self.run("warm run", fleet)
            self.measure_idle("warm", fleet)
            self.round_trips(10, "10 nodes")
        finally:
            fleet.down(volumes=True)

    def stock(self) -> None:
        """Measure Flower's own executor on the same images: a run and the idle cost."""
        fleet = self.fleet("stock")
        self.start(fleet)
        try:
            self.run("stock executor", fleet)
            self.measure_idle("stock", fleet)
        finally:
            fleet.down(volumes=True)

    def simulated(self) -> None:
        """Measure a run of the same app in Flower's simulation."""
        folder = self.folder / "simulation"
        folder.mkdir(exist_ok=True)
        with simulation(folder, 10, self.dataset) as environment:
            with Cost(self.baseline) as cost:
                output = run_flwr(environment, "run", ".", "local", "--stream")
            self.record_run("Flower's simulation", output, cost)

    def scale(self) -> None:
        """Measure round trips on one and on fifty nodes: local processes that do not preload a framework."""
        for supernodes in (1, 50):
            os.environ["EXECUTOR_PRELOAD"] = "flwr"
            fleet = self.fleet("warm", supernodes, "processes")
            try:
                self.start(fleet)
                self.round_trips(supernodes, f"{supernodes} node{'s' * (supernodes > 1)}, processes")
            finally:
                fleet.down(volumes=True)
                del os.environ["EXECUTOR_PRELOAD"]

    def round_trips(self, supernodes: int, label: str) -> None:
        """Measure round trips of no-op messages, to one node and to all nodes."""
        output = run_flwr(os.environ, "run", ".", NAME, "--stream", "--run-config", f"nodes={supernodes}", app=NOOP)
        match = re.search(r"noop (\{.*\})", output)
        if match is None:
            raise RuntimeError(f"the no-op app printed no result:\n{output}")
        trips = json.loads(match[1])
        for recipients in ("one", "all"):
            self.trips.append({"fleet": label, **trips[recipients]})
            print(f"  round trip, {label}: {trips[recipients]}", flush=True)

    def measure_idle(self, label: str, fleet: Fleet) -> None:
        """Measure the CPU and memory of an idle fleet, without the machine's background CPU use."""
        fleet.members()
        time.sleep(5)
        cores, memory = _cores_used(IDLE_SECONDS) - self.background, self.baseline - available()
        self.idle[label] = {"cores": round(cores, 4), "memory": memory}
        print(f"  idle, {label}: {cores:.1%} of one core, {memory / 2**30:.1f} GiB", flush=True)

    def record_run(self, label: str, output: str, cost: Cost) -> None:
        """Record the cost of a run and its final accuracy."""
        accuracy = final_accuracy(output)
        self.record(Measured(label, strategy_seconds(output), cost.wall, cost.cpu, cost.memory, accuracy))

    def save(self) -> None:
        """Write the results so far as JSON and as a plot."""
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
        """Return the results so far as Markdown tables."""
        tables = (runs_table(self.measured), trips_table(self.trips), idle_table(self.idle))
        return "\n\n".join(table for table in tables if table)

    def record(self, measured: Measured) -> None:
        """Record a measurement and print it."""
        self.measured.append(measured)
        print(f"  {measured.label}: {measured.strategy:.1f} s", flush=True)


def _cores_used(seconds: float) -> float:
    """Return the machine's average CPU use during the next `seconds`, as a fraction of one core."""
    start = cpu_seconds()
    time.sleep(seconds)
    return (cpu_seconds() - start) / seconds


def main() -> None:
    """Run the selected parts and print the tables."""
    parts: dict[str, Callable[[Bench], None]] = {
        "arithmetic": Bench.arithmetic,
        "fleet": Bench.our_fleet,
        "stock": Bench.stock,
        "simulation": Bench.simulated,
        "scale": Bench.scale,
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="how many times to measure each part (default: 1)")
    parser.add_argument(
        "--parts", nargs="+", choices=parts, default=list(parts), help="the parts to measure (default: all)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bouquet-bench-") as scratch:
        dataset = HostSettings.read().dataset or PROJECT / "data" / "cifar10-sample"
        bench = Bench(Path(scratch), dataset)
        for _ in range(arguments.repeats):
            for part in arguments.parts:
                parts[part](bench)
                if part in ("fleet", "stock"):
                    bench.arithmetic()  # after each of them, because the machine's speed drifts
                bench.save()
    print(f"\n{bench.tables()}\n\n{RESULTS}\n{PLOT}")


report_errors(main)
