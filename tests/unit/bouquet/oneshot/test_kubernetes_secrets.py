"""The chart's hook: it creates the Secrets that are missing, and changes none. A fake API server stands in."""

import base64
import json
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509

from bouquet.errors import FleetError, HostError
from bouquet.oneshot import certificates
from bouquet.oneshot.kubernetes_secrets import KubernetesApi, ensure_secrets
from bouquet.settings.oneshot import CertificateSettings, KubernetesSecretSettings

TOKEN = "a-token"
NAMES = {"BOUQUET_AUTHORITY_SECRET": "f-authority", "BOUQUET_CA_SECRET": "f-ca", "BOUQUET_SEED_SECRET": "f-seed"}
PATH = re.compile(r"/api/v1/namespaces/fleets/secrets(?:/([\w-]+))?")


@dataclass
class ApiServer:
    """What a Kubernetes API server does with the Secrets of one namespace.

    `hidden` are Secrets that another hook creates between this hook's look and its own attempt.
    """

    port: int = 0
    folder: Path = Path()
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    forbidden: bool = False
    requests: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, object]:
        self.requests.append(f"{method} {path}")
        match = PATH.fullmatch(path)
        if token != f"Bearer {TOKEN}" or match is None:
            return 401, {"message": "Unauthorized"}
        if self.forbidden:
            return 403, {"message": "secrets is forbidden: User cannot do this"}
        if method == "GET":
            name = match[1]
            if name in self.hidden or name not in self.secrets:
                self.hidden.discard(name)
                return 404, {"message": f'secrets "{name}" not found'}
            return 200, {"kind": "Secret", "data": self.secrets[name]}
        secret = json.loads(body)
        name = secret["metadata"]["name"]
        if name in self.secrets:
            return 409, {"message": f'secrets "{name}" already exists'}
        self.secrets[name] = secret["data"]
        self.labels[name] = secret["metadata"]["labels"]
        return 201, secret

    def content(self, name: str, key: str) -> bytes:
        return base64.b64decode(self.secrets[name][key])

    def put(self, name: str, **content: bytes) -> None:
        self.secrets[name] = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in content.items()}

    def settings(self, **environment: str) -> KubernetesSecretSettings:
        return KubernetesSecretSettings.read(
            {
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(self.port),
                "BOUQUET_SERVICE_ACCOUNT_DIR": str(self.folder),
                "BOUQUET_SECRET_LABELS": '{"app.kubernetes.io/instance": "f"}',
                **(environment or NAMES),
            }
        )

    def ensure(self, **environment: str) -> list[str]:
        settings = self.settings(**environment)
        return ensure_secrets(KubernetesApi(settings.url, settings.service_account), settings)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server with a certificate of its own CA, and a folder as a service account has it."""
    state = ApiServer(folder=tmp_path / "account")
    variables = {
        f"BOUQUET_{name}_DIR": str(tmp_path / name.lower()) for name in ("AUTHORITY", "SERVER", "IDENTITY", "STATE")
    }
    certificates.ensure(CertificateSettings.read(variables))
    state.folder.mkdir()
    (state.folder / "token").write_text(TOKEN)
    (state.folder / "namespace").write_text("fleets")
    (state.folder / "ca.crt").write_bytes((tmp_path / "server" / "ca.crt").read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, answer = state.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            text = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server" / "server.pem", tmp_path / "server" / "server.key")
    http.socket = context.wrap_socket(http.socket, server_side=True)
    state.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_the_first_hook_creates_a_ca_its_certificate_and_a_seed(server: ApiServer) -> None:
    assert server.ensure() == ["Secret f-authority: created", "Secret f-ca: created", "Secret f-seed: created"]
    assert {name: set(content) for name, content in server.secrets.items()} == {
        "f-authority": {"ca.key", "ca.crt"},
        "f-ca": {"ca.crt"},
        "f-seed": {"seed"},
    }
    assert server.content("f-ca", "ca.crt") == server.content("f-authority", "ca.crt")
    assert x509.load_pem_x509_certificate(server.content("f-ca", "ca.crt"))
    assert re.fullmatch(rb"[0-9a-f]{64}", server.content("f-seed", "seed"))
    assert all(labels == {"app.kubernetes.io/instance": "f"} for labels in server.labels.values())


def test_two_fleets_have_different_seeds(server: ApiServer) -> None:
    server.ensure()
    server.ensure(BOUQUET_SEED_SECRET="g-seed")
    assert server.content("f-seed", "seed") != server.content("g-seed", "seed")


def test_a_later_hook_writes_nothing(server: ApiServer) -> None:
    server.ensure()
    before = json.dumps(server.secrets)
    server.requests.clear()
    assert all(line.endswith("exists, unchanged") for line in server.ensure())
    assert json.dumps(server.secrets) == before
    assert not [request for request in server.requests if not request.startswith("GET ")]


def test_a_secret_that_another_hook_creates_at_the_same_time_is_kept(server: ApiServer) -> None:
    server.ensure()
    before = json.dumps(server.secrets)
    server.hidden = {"f-authority", "f-seed"}
    server.ensure()
    assert json.dumps(server.secrets) == before


def test_what_an_interrupted_hook_left_out_is_created_with_the_ca_that_is_there(server: ApiServer) -> None:
    server.ensure()
    authority = server.content("f-authority", "ca.crt")
    del server.secrets["f-ca"], server.secrets["f-seed"]
    server.ensure()
    assert server.content("f-ca", "ca.crt") == authority
    assert "f-seed" in server.secrets


def test_a_new_ca_beside_the_certificate_of_an_old_one_is_an_error_that_says_what_to_delete(server: ApiServer) -> None:
    server.ensure()
    del server.secrets["f-authority"]
    with pytest.raises(FleetError, match="Secret f-ca has another CA than Secret f-authority.*delete"):
        server.ensure()


def test_a_secret_without_its_key_is_named(server: ApiServer) -> None:
    server.put("f-authority", ca_key=b"x")
    with pytest.raises(FleetError, match="Secret f-authority has no ca.crt"):
        server.ensure()


def test_only_the_secrets_with_a_name_are_created(server: ApiServer) -> None:
    assert server.ensure(BOUQUET_SEED_SECRET="mine") == ["Secret mine: created"]
    assert list(server.secrets) == ["mine"]


def test_a_refusal_names_the_secret_and_the_servers_reason(server: ApiServer) -> None:
    server.forbidden = True
    with pytest.raises(FleetError, match="refused to read Secret f-authority: 403 secrets is forbidden.*Role"):
        server.ensure()


def test_a_token_that_was_replaced_is_read_again(server: ApiServer) -> None:
    settings = server.settings()
    api = KubernetesApi(settings.url, settings.service_account)
    (server.folder / "token").write_text("old")
    with pytest.raises(FleetError, match="401 Unauthorized"):
        ensure_secrets(api, settings)
    (server.folder / "token").write_text(f"{TOKEN}\n")
    assert len(ensure_secrets(api, settings)) == 3


def test_a_server_with_a_certificate_of_another_ca_gets_no_token(server: ApiServer, tmp_path: Path) -> None:
    certificates.new_authority(tmp_path / "other")
    (server.folder / "ca.crt").write_bytes((tmp_path / "other" / "ca.crt").read_bytes())
    with pytest.raises(FleetError, match="does not answer.*certificate verify failed"):
        server.ensure()
    assert server.requests == []


def test_an_unreachable_server_is_one_line(server: ApiServer) -> None:
    settings = server.settings()
    api = KubernetesApi("https://127.0.0.1:1", settings.service_account)
    with pytest.raises(FleetError, match=r"the API server does not answer at https://127\.0\.0\.1:1.*NetworkPolicy"):
        ensure_secrets(api, settings)


def test_proxies_of_the_environment_are_not_used(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert len(server.ensure()) == 3


def test_outside_of_a_pod_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no pod of Kubernetes"):
        KubernetesSecretSettings.read({"BOUQUET_SERVICE_ACCOUNT_DIR": str(tmp_path)})


def test_an_ipv6_address_of_the_server_has_brackets(server: ApiServer) -> None:
    assert server.settings(KUBERNETES_SERVICE_HOST="fd00::1").url == f"https://[fd00::1]:{server.port}"
