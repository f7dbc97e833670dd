"""`bouquet doctor` says when a proxy is in the way of a `flwr` command."""

import pytest

from bouquet.host.checks.http_proxies import FIX, http_proxies

PROXY = "http://proxy.example.org:3128"


def test_without_a_proxy_nothing_is_in_the_way() -> None:
    assert http_proxies({}) == http_proxies({"HTTPS_PROXY": PROXY}) == "none is set"  # gRPC reads lower case only


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy"])
def test_a_proxy_that_does_not_except_this_machine_is_named_with_the_fix(name: str) -> None:
    assert http_proxies({name: PROXY, "no_proxy": ".corp,10.0.0.0/8"}) == (
        f"{name} is for downloads; before you type a flwr command: {FIX}"
    )
    assert "not in capital letters" in http_proxies({name: PROXY, "NO_PROXY": "127.0.0.1"})


@pytest.mark.parametrize("exceptions", ["127.0.0.1", "localhost,127.0.0.0/8", ".corp, 127.0.0.1"])
def test_a_proxy_with_an_exception_for_this_machine_is_fine(exceptions: str) -> None:
    assert http_proxies({"https_proxy": PROXY, "no_proxy": exceptions}).endswith("no_proxy excepts 127.0.0.1")
