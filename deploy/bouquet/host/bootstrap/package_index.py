"""Where Python packages come from: the index and the CA bundle that the user has set for pip or for uv, for both.

pip and uv install the environment together, and each has its own variables and files. A user who has set up one of
the two means both.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

UV_INDEX = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
CA_BUNDLE = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables with the path of a CA bundle. uv reads only the first; pip the other three."""
REDIRECTING = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "UV_TARGET", "UV_PREFIX", "UV_SYSTEM_PYTHON")
"""Variables that make pip or uv install elsewhere than into the environment."""
OVERRIDING = ("UV_LOCKED", "UV_FROZEN", "UV_REQUIRE_HASHES", "UV_EXCLUDE_NEWER", "UV_CONSTRAINT", "UV_OVERRIDE")
"""Variables that contradict the options that Bouquet calls uv with, or the lock."""


def downloads(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables in which pip and uv both find the user's index and CA bundle.

    Args:
        environ: The environment variables as the user has set them.

    Returns:
        All of them, with additional ones for the tool that has no setting of its own.
    """
    found = {name: value for name, value in environ.items() if name not in (*REDIRECTING, *OVERRIDING)}
    of_pip = _pip_settings(found)
    for_uv = next((found[name] for name in UV_INDEX if found.get(name)), None) or _uv_file_index(found)
    for_pip = found.get("PIP_INDEX_URL") or of_pip.get("index-url")
    if for_uv and not for_pip:
        found["PIP_INDEX_URL"] = for_uv
    if for_pip and not for_uv:
        found["UV_DEFAULT_INDEX"] = for_pip
    if extra := found.get("PIP_EXTRA_INDEX_URL") or of_pip.get("extra-index-url"):
        found["UV_EXTRA_INDEX_URL"] = found.get("UV_EXTRA_INDEX_URL") or extra
    bundle = next((found[name] for name in CA_BUNDLE if found.get(name)), None) or of_pip.get("cert")
    if bundle:
        for name in CA_BUNDLE[:2]:
            found[name] = found.get(name) or bundle
    return found


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings from its files, by name. pip itself finds and merges the files."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(command, env=environ, capture_output=True, text=True, check=False).stdout
    settings = {}
    for line in listed.splitlines():  # such as: global.index-url='https://mirror.example/simple'
        name, separator, value = line.partition("=")
        section, _, key = name.partition(".")
        if separator and section in ("global", "install"):
            settings[key] = value.strip("'\"")
    return settings


def _uv_file_index(environ: Mapping[str, str]) -> str | None:
    """Return the default index in uv's own file; None where there is none."""
    configuration = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = [Path(environ["UV_CONFIG_FILE"])] if environ.get("UV_CONFIG_FILE") else []
    for path in [*files, configuration / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]:
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if index := _default_index(content) or _default_index(content.get("pip", {})):
            return index
    return None


def _default_index(content: dict[str, Any]) -> str | None:
    default = (each.get("url") for each in content.get("index", ()) if each.get("default"))
    return next(default, None) or content.get("index-url")
