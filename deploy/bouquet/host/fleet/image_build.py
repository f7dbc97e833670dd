"""Builds the fleet's images with Compose; unchanged layers are cached."""

import os
from collections.abc import Iterator

from python_on_whales.components.compose.cli_wrapper import ComposeCLI
from python_on_whales.exceptions import DockerException

from bouquet.errors import FleetError
from bouquet.files import write_if_changed
from bouquet.host.bootstrap import base_image
from bouquet.host.packages.package_list import SHIPPED_LISTS, PackageList, image_tag
from bouquet.settings.host import PROJECT, HostSettings


def build_images(compose: ComposeCLI, settings: HostSettings, packages: PackageList) -> Iterator[str]:
    """Build both images; yield what they are built on. Afterwards the environment variable TAG has their tag.

    Args:
        compose: Compose with the fleet's files.
        settings: The settings.
        packages: What the images must have; if there are images with it already, nothing is built.

    Raises:
        FleetError: The images do not build.
    """
    if packages.images is not None:
        os.environ["TAG"] = packages.images
        return
    base = settings.base_image or base_image.ensure()
    os.environ["BASE_IMAGE"] = base  # read by Compose, as from .env
    yield f"images: built on {base}"
    os.environ["BOUQUET_PACKAGES"] = _into_build_context(packages)
    if (tag := image_tag(settings.tag, packages.digest)) != settings.tag:
        os.environ["TAG"] = tag
    try:
        compose.build()
    except DockerException as error:
        raise FleetError("the images did not build (see above)", "fix the build error above and retry") from error


def _into_build_context(packages: PackageList) -> str:
    """Return the path of a list in the checkout, which is the build context; copy the list there if it is elsewhere."""
    if packages.path.parent in SHIPPED_LISTS:
        return str(packages.path.relative_to(PROJECT))
    path = PROJECT / ".bouquet" / "packages" / f"{packages.digest}.txt"
    write_if_changed(path, packages.path.read_bytes())
    return str(path.relative_to(PROJECT))
