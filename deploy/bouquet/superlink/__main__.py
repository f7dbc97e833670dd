"""Entry point of the SuperLink: `python -m bouquet.superlink`.

It reads the settings and replaces itself by the process that serves. gRPC reads its environment variables when it is
imported: so this module lets `handshake_log` set them and does not import gRPC.
"""

import sys
from dataclasses import replace

from bouquet.contract.tls_files import CA, SERVER, SERVER_KEY
from bouquet.errors import FleetError, report_errors
from bouquet.runtime import grpc_proxy, hub_cache
from bouquet.runtime.process import exec_module, resolve_port
from bouquet.settings.env import INSECURE_WARNING
from bouquet.settings.superlink import SuperLinkSettings
from bouquet.superlink import handshake_log


def command_line(settings: SuperLinkSettings) -> list[str]:
    """Return the arguments of `flower-superlink`."""
    return [
        *security(settings),
        "--fleet-api-address",
        settings.fleet_address,
        "--control-api-address",
        settings.control_address,
        "--serverappio-api-address",
        resolve_port(settings.runtime_address),
        "--database",
        str(settings.directories.state / "superlink.db"),
        "--disable-runtime-dependency-installation",
    ]


def security(settings: SuperLinkSettings) -> list[str]:
    """Return the arguments for TLS and the authentication of SuperNodes, or for neither.

    Raises:
        FleetError: The SuperLink's certificate is missing.
    """
    if settings.insecure:
        return ["--insecure"]
    files = {"--ssl-ca-certfile": CA, "--ssl-certfile": SERVER, "--ssl-keyfile": SERVER_KEY}
    server = settings.directories.server
    for name in files.values():
        if not (server / name).exists():
            raise FleetError(
                f"{server / name} is missing: the SuperLink has no certificate",
                "issue it: python -m bouquet.oneshot.certificates (with Compose, the service `certificates` does so)",
            )
    options = (word for option, name in files.items() for word in (option, str(server / name)))
    return ["--enable-supernode-auth", *options]


def issue_certificate() -> None:
    """Ensure that the SuperLink of a cluster has a valid certificate of its CA, as `oneshot.certificates` does."""
    from bouquet.oneshot import certificates  # noqa: PLC0415  it has settings of its own, and only a cluster needs it
    from bouquet.settings.oneshot import CertificateSettings  # noqa: PLC0415

    settings = CertificateSettings.read()
    folders = replace(settings.directories, identities=settings.directories.server)  # it has no SuperNodes
    sys.stderr.write(f"bouquet: {certificates.ensure(replace(settings, directories=folders))}\n")


def main() -> None:
    """Check the settings and replace this process by the one that serves."""
    settings = SuperLinkSettings.read()
    grpc_proxy.only_on_request()
    hub_cache.link(*settings.hub_cache)
    settings.directories.state.mkdir(parents=True, exist_ok=True)
    if settings.insecure:
        sys.stderr.write(f"bouquet: warning: {INSECURE_WARNING}\n")
    else:
        if settings.issues_certificate:
            issue_certificate()
        handshake_log.start()
    exec_module("bouquet.superlink.serve_superlink", command_line(settings))


if __name__ == "__main__":
    report_errors(main)
