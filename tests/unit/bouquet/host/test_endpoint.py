"""A fleet's endpoint: the loopback address and the CA that the fleet itself has."""

from typing import cast

from bouquet.host.endpoint import Endpoint
from bouquet.host.fleet.base import Fleet


class FakeFleet:
    def root_certificate(self) -> bytes:
        return b"CA"


def test_an_endpoint_is_the_published_port_with_the_fleets_certificate() -> None:
    assert Endpoint.of(cast(Fleet, FakeFleet()), 9193) == Endpoint("127.0.0.1:9193", b"CA")
