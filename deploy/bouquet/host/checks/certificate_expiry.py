"""When the certificates end."""

import ssl
from datetime import datetime

from bouquet.errors import FleetError, HostError
from bouquet.host.connection import read_connection
from bouquet.settings.host import HostSettings

TLS_TIMEOUT = 5.0
RENEW_DAYS = 14
"""Days before its end from which on a certificate counts as a problem."""


def certificates(settings: HostSettings, up: bool, now: datetime) -> str:
    """Check that the connection's CA, and the certificate that a running SuperLink shows, do not end soon."""
    try:
        _, ca = read_connection(settings.flower_home)
    except FleetError:
        return "none yet: `make up` writes the connection"
    if ca is None:
        return "none: the connection is without TLS"
    try:
        messages = [f"the CA is valid until {valid_until(f'the CA {ca}', ca.read_bytes(), now)}"]
        if up:
            shown = ssl.get_server_certificate(("127.0.0.1", settings.control_port), timeout=TLS_TIMEOUT)
            end = valid_until("the certificate of the SuperLink", shown.encode(), now)
            messages.append(f"the SuperLink's certificate until {end}")
    except OSError as error:
        raise HostError(
            f"TLS at port {settings.control_port} with {ca}: {error}", "start the fleet again: make up"
        ) from error
    return ", ".join(messages)


def valid_until(name: str, pem: bytes, now: datetime) -> str:
    """Return the day on which a certificate ends.

    Args:
        name: What to call the certificate in an error.
        pem: The certificate.
        now: The current time.

    Raises:
        HostError: It ends within `RENEW_DAYS`, or it is not a certificate.
    """
    from cryptography import x509  # noqa: PLC0415  the import is slow, and only this check needs it

    try:
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except ValueError as error:
        raise HostError(f"{name}: not a certificate ({error})", "replace it: make up") from error
    days = (end - now).days
    if days < RENEW_DAYS:
        problem = f"ended on {end:%Y-%m-%d}" if days < 0 else f"ends on {end:%Y-%m-%d}, in {days} days"
        raise HostError(f"{name} {problem}", "renew it: make down up")
    return f"{end:%Y-%m-%d}"
