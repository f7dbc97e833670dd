"""What a bundle contains: the names of its files, and `bundle.env`, which describes it."""

import io
from dataclasses import asdict, dataclass
from typing import Self

from dotenv import dotenv_values

FORMAT = "1"
"""Version of the format. Another one is refused."""
RUN = "run"
README = "README.txt"
DESCRIPTION = "bundle.env"
SETTINGS = ".env"
"""Settings of the bundle's fleet. The site may edit the file, so it has no checksum."""
CHECKSUMS = "SHA256SUMS"
APP = "app.fab"
PACKAGES = "packages.txt"
IMAGES = "images.tar.gz"
CACHE = "hf-cache"
COMPOSE_FILE = "docker-compose.yml"
COMPOSE_FOLDER = "deploy/compose"
MOUNTED_FOLDERS = ("data/cifar10-sample",)
"""Folders of the checkout that docker-compose.yml mounts by default. Nothing reads them, so they are empty here."""

TRAVELLING = (
    *("SUPERNODES", "SUPERNODE_MEMORY", "SUPERNODE_CPUS", "SUPERNODE_PIDS"),
    *("SUPERLINK_MEMORY", "SUPERLINK_CPUS", "SUPERLINK_PIDS", "NODE_CONFIG", "FLEET_DEADLINE", "ROUND_DEADLINE"),
    *("EXECUTOR", "EXECUTOR_PRELOAD", "EXECUTOR_WORKERS", "EXECUTOR_IDLE", "EXECUTOR_TIMEOUT", "EXECUTOR_MESSAGES"),
    *("EXECUTOR_GROWTH", "TF_THREADS"),
)
"""Settings that belong to the app rather than to this machine. A bundle has those that are set."""


@dataclass(frozen=True)
class Description:
    """What a bundle is, as `bundle.env` says. A shell reads that file too.

    Attributes:
        name: The app's name.
        version: The app's version.
        platform: Docker's name of the platform that the images are for, such as `linux/amd64`.
        tag: Tag of both images. It is unique to their content, so loading them replaces no other image.
        images_for: `cpu` or `gpu`.
        bouquet: The version of Bouquet that wrote the bundle.
    """

    name: str
    version: str
    platform: str
    tag: str
    images_for: str
    bouquet: str

    def text(self) -> str:
        """Return the content of `bundle.env`."""
        lines = [f"{name.upper()}='{value}'" for name, value in asdict(self).items()]
        return "\n".join([f"FORMAT='{FORMAT}'", *lines, ""])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the description that `text` returned as text.

        Raises:
            ValueError: It has another format.
        """
        values = dotenv_values(stream=io.StringIO(text), interpolate=False)
        if values.get("FORMAT") != FORMAT:
            raise ValueError(f"format {values.get('FORMAT')}, this version reads format {FORMAT}")
        try:
            return cls(**{name: values[name.upper()] or "" for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is missing") from error
