"""A fleet in Kubernetes through `kubectl`: a script stands in, which keeps what it is asked in the file `calls`."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import FleetError, HostError, SettingError
from bouquet.host import kubernetes
from bouquet.host.kubernetes import KubernetesRelease
from tests.unit.bouquet.conftest import Install

CA = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
POD = "fleet-bouquet-superlink-0"


def pod(name: str = POD, ready: str = "True", release: str = "fleet", **metadata: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/instance": release}, **metadata},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
    }


class Kubectl:
    """What `kubectl` answers to each of its commands."""

    def __init__(self, install: Install, folder: Path) -> None:
        self._install, self._folder = install, folder

    def answers(self, *pods: dict[str, Any], **bodies: str) -> None:
        (self._folder / "pods.json").write_text(json.dumps({"items": list(pods)}))
        (self._folder / "ca.crt").write_text(CA)
        cat = 'while IFS= read -r line || [ -n "$line" ]; do echo "$line"; done <'
        commands = {
            "get": f'{cat} "{self._folder}/pods.json"',
            "exec": f'{cat} "{self._folder}/ca.crt"',
            "wait": "exec /bin/sleep 60",
            **{name.replace("_", "-"): body for name, body in bodies.items()},
        }
        cases = "\n".join(f"{name}) {body};;" for name, body in commands.items())
        self._install(kubectl=f'[ "$1" = --namespace ] && shift 2\ncase "$1" in\n{cases}\nesac')

    def calls(self) -> list[str]:
        return (self._folder / "calls").read_text().splitlines()


@pytest.fixture
def kubectl(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    for name in ("FORWARD_POLL_SECONDS", "READY_POLL_SECONDS"):
        monkeypatch.setattr(kubernetes, name, 0.01)
    return Kubectl(install, tmp_path)


def test_the_certificate_is_the_one_that_the_superlink_has(kubectl: Kubectl) -> None:
    kubectl.answers(pod())
    assert KubernetesRelease("fleets/fleet").root_certificate() == CA.encode()
    assert kubectl.calls() == [
        "kubectl --namespace fleets get pods --selector "
        "app.kubernetes.io/instance=fleet,app.kubernetes.io/component=superlink --output json",
        f"kubectl --namespace fleets exec pod/{POD} --container superlink -- cat /var/lib/bouquet/server/ca.crt",
    ]


def test_without_a_namespace_kubectls_own_is_used_and_without_a_name_the_only_release(kubectl: Kubectl) -> None:
    kubectl.answers(pod())
    KubernetesRelease("").root_certificate()
    assert kubectl.calls()[0].startswith("kubectl get pods --selector app.kubernetes.io/name=bouquet,")


@pytest.mark.parametrize("name", ["/fleet", "fleets/", "a/b/c"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=f"--kubernetes={name}: not the name of a release"):
        KubernetesRelease(name)


def test_of_several_releases_one_must_be_named(kubectl: Kubectl) -> None:
    kubectl.answers(pod(), pod("b-superlink-0", release="b"))
    with pytest.raises(SettingError, match="several releases: b, fleet; name one: --kubernetes b"):
        KubernetesRelease("").root_certificate()


@pytest.mark.parametrize(
    ("pods", "state"),
    [
        ([], "no pod has the labels app.kubernetes.io/instance=fleet"),
        ([pod(ready="False")], f"{POD} is Running"),
        ([pod(deletionTimestamp="2026-01-01T00:00:00Z")], f"{POD} is Running"),
    ],
    ids=["none", "not ready", "being deleted"],
)
def test_a_superlink_that_is_not_ready_is_an_error_that_says_its_state(
    kubectl: Kubectl, pods: list[dict[str, Any]], state: str
) -> None:
    kubectl.answers(*pods)
    with pytest.raises(FleetError, match=f"no SuperLink is ready in Kubernetes .{state}"):
        KubernetesRelease("fleet").root_certificate()


def test_a_missing_kubectl_is_one_line(install: Install) -> None:
    install()
    with pytest.raises(HostError, match="kubectl is not on PATH; install kubectl"):
        KubernetesRelease("fleet").root_certificate()


def test_what_kubectl_says_is_quoted(kubectl: Kubectl) -> None:
    kubectl.answers(get='echo "error: You must be logged in" >&2; exit 1')
    with pytest.raises(FleetError, match="kubectl get: error: You must be logged in"):
        KubernetesRelease("fleet").root_certificate()


def test_a_forward_that_ends_is_started_again(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.answers(pod(), port_forward='echo "Forwarding from 127.0.0.1:1"; /bin/sleep 0.3')
    seen: list[str] = []

    def lost(name: str) -> None:
        seen.append(f"lost {name}")
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KubernetesRelease("fleet").forward(19093, lambda name: seen.append(f"have {name}"), lost)
    assert seen == [f"have {POD}", f"lost {POD}"] * 2
    forwards = [call for call in kubectl.calls() if "port-forward" in call]
    assert forwards == [f"kubectl port-forward --address 127.0.0.1 pod/{POD} 19093:9093"] * 2


def test_a_forward_that_outlives_its_pod_is_ended(kubectl: Kubectl) -> None:
    kubectl.answers(pod(), port_forward='echo "Forwarding"; exec /bin/sleep 60', wait="exit 0")

    def lost(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KubernetesRelease("fleet").forward(19093, lambda name: None, lost)


def test_a_user_who_may_not_watch_pods_still_has_the_forward(kubectl: Kubectl) -> None:
    kubectl.answers(pod(), port_forward='echo "Forwarding"; /bin/sleep 0.5; echo ended', wait="exit 1")
    seen: list[str] = []

    def lost(name: str) -> None:
        seen.append("lost")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KubernetesRelease("fleet").forward(19093, seen.append, lost)
    assert seen == [POD, "lost"]


def test_a_port_that_is_taken_is_named_with_another(kubectl: Kubectl) -> None:
    kubectl.answers(pod(), port_forward='echo "error: unable to listen on any of the requested ports" >&2; exit 1')
    with pytest.raises(FleetError, match=r"CONTROL_PORT=9093: .*unable to listen.*another port: CONTROL_PORT=9094"):
        KubernetesRelease("fleet").forward(9093, lambda name: None, lambda name: None)


def archive(folder: Path, **files: str) -> None:
    with tarfile.open(folder / "results.tar", "w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./123/{name}.json")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("./latest")
        link.type, link.linkname = tarfile.SYMTYPE, "123"
        tar.addfile(link)


def test_results_come_into_the_users_folder_and_their_own_files_stay(kubectl: Kubectl, tmp_path: Path) -> None:
    archive(tmp_path, metrics='{"loss": 1}')
    mine = tmp_path / "results" / "123" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    kubectl.answers(pod(), exec=f'/bin/cat "{tmp_path}/results.tar"')
    KubernetesRelease("fleet").collect_results(tmp_path / "results")
    assert (tmp_path / "results" / "latest" / "metrics.json").read_text() == '{"loss": 1}'
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    "body",
    ['/usr/bin/head -c 700 "{0}"', '/bin/cat "{0}"; echo "error: lost connection" >&2; exit 1', "exit 1"],
    ids=["cut off", "failed", "nothing"],
)
def test_a_copy_that_is_not_complete_changes_nothing(kubectl: Kubectl, tmp_path: Path, body: str) -> None:
    archive(tmp_path, metrics="x" * 2000)
    kubectl.answers(pod(), exec=body.format(tmp_path / "results.tar"))
    with pytest.raises(FleetError, match="the results could not be copied"):
        KubernetesRelease("fleet").collect_results(tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []
