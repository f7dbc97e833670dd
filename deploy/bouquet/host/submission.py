"""Submits an app to one fleet by `flwr run`, from a Flower home of its own.

The user's `config.toml` is not read: another fleet, or `flwr` itself, may have rewritten the connection in it.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import tomlkit

from bouquet.errors import RunError
from bouquet.host.endpoint import Endpoint
from bouquet.probing import start

FLWR = Path(sys.executable).parent / "flwr"
STARTED = re.compile(r"Successfully started run (\d+)")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Variables that keep Flower's notices out of a run's log."""
UTF_8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}
"""Variables that let `flwr` print its symbols whatever the terminal's encoding is."""
CONNECTION = "bouquet-run"
"""A name that no app has in its old `[tool.flwr.federations]`, which `flwr run` writes over connections."""
MAX_LINES = 5
"""Lines of what `flwr` says about a rejected run that an error contains."""


def submit_app(app: Path, run_config: str, endpoint: Endpoint) -> int:
    """Submit a run of an app and return the run's id. An interrupt ends `flwr`, which may have submitted the run.

    Args:
        app: The app's folder.
        run_config: Overrides of the app's run-config, as `flwr run --run-config` takes them; empty for none.
        endpoint: The fleet.

    Raises:
        RunError: The run was rejected; the message is what `flwr` says.
    """
    command = [str(FLWR), "run", str(app), CONNECTION, "--format", "json"]
    if run_config:
        command += ["--run-config", run_config]
    with tempfile.TemporaryDirectory(prefix="bouquet-") as home:
        _write_home(Path(home), endpoint)
        flwr = start(command, os.environ | QUIET | UTF_8 | {"FLWR_HOME": home})
        try:
            output, problems = flwr.communicate()
        finally:
            flwr.kill()
            flwr.communicate()
    return _run_id(output, problems, run_config)


def _write_home(home: Path, endpoint: Endpoint) -> None:
    connection: dict[str, str | bool] = {"address": endpoint.address}
    if endpoint.root_certificate is None:
        connection["insecure"] = True
    else:
        certificate = home / "ca.crt"
        certificate.write_bytes(endpoint.root_certificate)
        connection["root-certificates"] = str(certificate)
    config = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
    (home / "config.toml").write_text(tomlkit.dumps(config), encoding="utf-8")


def _run_id(output: str, problems: str, run_config: str) -> int:
    try:
        answer = json.loads(output)
        if answer["success"]:
            return int(answer["run-id"])
        reason = str(answer["error-message"])
    except (ValueError, LookupError, TypeError):
        reason = problems or output  # `flwr` ended in a way that it did not expect itself
    lines = [line.strip(" │╭╮╰╯─") for line in reason.splitlines() if not line.startswith("Using SuperLink")]
    words = " ".join(" ".join(lines[-MAX_LINES:]).split()) or "flwr gives no reason"
    setting = f"RUN_CONFIG={run_config}: " if run_config else ""
    raise RunError(f"{setting}the run was rejected: {words}", "correct what flwr names and retry")
