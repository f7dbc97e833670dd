"""gRPC connects directly, whatever proxies the environment has for downloads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from bouquet.flower.channels import open_channel
from bouquet.flower.control_client import ControlApiError
from bouquet.runtime.grpc_proxy import EXCEPTIONS, FLEET, PROXY, only_on_request, through

NOWHERE = "http://127.0.0.1:9"
"""A proxy that refuses connections."""
NAMES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY", PROXY, EXCEPTIONS)


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a gRPC server; the test starts without proxies in its environment."""
    for name in NAMES:
        monkeypatch.setenv(name, "restored later")
        monkeypatch.delenv(name)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def answers(address: str) -> bool:
    with open_channel(address, None) as channel:
        try:
            return bool(channel.unary_unary("/any/Call")(b"x", timeout=10) == b"x")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            return False


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy"])
def test_a_proxy_for_downloads_is_not_used_by_grpc(
    variable: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, NOWHERE)
    assert not answers(address)  # what gRPC does by itself
    only_on_request()
    assert answers(address)


def test_grpc_proxy_is_used_but_not_inside_the_fleet(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROXY, NOWHERE)
    only_on_request()
    assert answers(address)
    monkeypatch.setenv(EXCEPTIONS, "")
    assert not answers(address)


@pytest.mark.parametrize("name", [EXCEPTIONS, "no_proxy", "NO_PROXY"])
def test_exceptions_of_the_user_stay_exceptions(name: str) -> None:
    environment = {PROXY: NOWHERE, name: "fleet.example.org,.corp"}
    only_on_request(environment)
    assert environment[PROXY] == NOWHERE
    assert environment[EXCEPTIONS].split(",") == ["fleet.example.org", ".corp", *FLEET]


def test_a_process_that_inherits_the_variables_leaves_them_as_they_are() -> None:
    environment = {"https_proxy": NOWHERE, "no_proxy": "localhost"}
    only_on_request(environment)
    inherited = dict(environment)
    only_on_request(inherited)
    assert inherited == environment
    assert (inherited["https_proxy"], inherited["no_proxy"]) == (NOWHERE, "localhost")  # downloads keep theirs


def test_an_error_names_the_proxy_without_its_password() -> None:
    environment = {PROXY: "http://me:secret@proxy.example.org:3128"}
    only_on_request(environment)
    assert through("fleet.example.org:9092", environment) == " through grpc_proxy=http://proxy.example.org:3128"
    for direct in ("superlink:9092", "control:9093", "127.0.0.1:9093", "[::1]:9092"):
        assert through(direct, environment) == ""
    only_on_request(without := {"https_proxy": NOWHERE})
    assert through("fleet.example.org:9092", without) == ""


def test_an_unreachable_control_api_is_reported_with_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROXY, NOWHERE)
    error = ControlApiError("control.example.org:9093", "UNAVAILABLE", "Connection refused")
    assert str(error).startswith(f"control.example.org:9093 through {PROXY}={NOWHERE}: UNAVAILABLE: Connection refused")
