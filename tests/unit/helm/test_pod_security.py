"""Each control of the Pod Security Standard *restricted*, over every pod of every set of values.

The controls are those of kubernetes.io/docs/concepts/security/pod-security-standards: baseline, then restricted. Each
has a pod that violates it, so that it can fail.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.helm.conftest import Chart, Manifest, containers, pods

Control = Callable[[Manifest], bool]
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected"),
    "secret",
}
SYSCTLS = {"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ping_group_range"}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def contexts(pod: Manifest) -> list[dict[str, Any]]:
    """The security contexts of a pod and of its containers; empty where there is none."""
    return [each.get("securityContext") or {} for each in (pod, *containers(pod))]


def own_contexts(pod: Manifest) -> list[dict[str, Any]]:
    return contexts(pod)[1:]


def handlers(container: Manifest) -> list[dict[str, Any]]:
    lifecycle = container.get("lifecycle", {})
    found = [container.get(f"{kind}Probe") for kind in ("startup", "readiness", "liveness")]
    return [each for each in (*found, lifecycle.get("postStart"), lifecycle.get("preStop")) if each]


def no_host_process(pod: Manifest) -> bool:
    return not any(c.get("windowsOptions", {}).get("hostProcess") for c in contexts(pod))


def no_host_namespaces(pod: Manifest) -> bool:
    return not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))


def not_privileged(pod: Manifest) -> bool:
    return not any(c.get("privileged") for c in own_contexts(pod))


def no_host_path(pod: Manifest) -> bool:
    return not any("hostPath" in volume for volume in pod.get("volumes", []))


def no_host_ports(pod: Manifest) -> bool:
    return not any(port.get("hostPort") for c in containers(pod) for port in c.get("ports", []))


def no_host_in_probes(pod: Manifest) -> bool:
    actions = [a for c in containers(pod) for h in handlers(c) for a in (h.get("httpGet"), h.get("tcpSocket")) if a]
    return not any(action.get("host") for action in actions)


def apparmor_of_the_runtime(pod: Manifest) -> bool:
    kinds = [c.get("appArmorProfile", {}).get("type") for c in contexts(pod)]
    return set(kinds) <= {None, "RuntimeDefault", "Localhost"}


def selinux_of_the_runtime(pod: Manifest) -> bool:
    options = [c.get("seLinuxOptions", {}) for c in contexts(pod)]
    return all(o.get("type", "") in SELINUX_TYPES and not o.get("user") and not o.get("role") for o in options)


def default_proc_mount(pod: Manifest) -> bool:
    return all(c.get("procMount", "Default") == "Default" for c in own_contexts(pod))


def safe_sysctls(pod: Manifest) -> bool:
    return all(sysctl["name"] in SYSCTLS for c in contexts(pod)[:1] for sysctl in c.get("sysctls", []))


def restricted_volume_types(pod: Manifest) -> bool:
    return all(set(volume) - {"name"} <= VOLUMES for volume in pod.get("volumes", []))


def no_privilege_escalation(pod: Manifest) -> bool:
    return all(c.get("allowPrivilegeEscalation") is False for c in own_contexts(pod))


def runs_as_non_root(pod: Manifest) -> bool:
    of_pod, *own = contexts(pod)
    return all(c.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is True for c in own)


def runs_as_no_root_user(pod: Manifest) -> bool:
    return all(c.get("runAsUser") != 0 for c in contexts(pod))


def seccomp_of_the_runtime(pod: Manifest) -> bool:
    of_pod, *own = (c.get("seccompProfile", {}).get("type") for c in contexts(pod))
    return all((each or of_pod) in ("RuntimeDefault", "Localhost") for each in own) and of_pod != "Unconfined"


def drops_all_capabilities(pod: Manifest) -> bool:
    return all(
        "ALL" in c.get("capabilities", {}).get("drop", [])
        and set(c.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"}
        for c in own_contexts(pod)
    )


def read_only_root(pod: Manifest) -> bool:
    """Not of the standard: as hardened as on one machine."""
    return all(c.get("readOnlyRootFilesystem") is True for c in own_contexts(pod))


def changed(*path: str | int, value: Any) -> Callable[[Manifest], None]:
    """A change of one key of a pod, below keys that may be missing."""

    def change(pod: Manifest) -> None:
        here: Any = pod
        for key in path[:-1]:
            here = here[key] if isinstance(key, int) else here.setdefault(key, {})
        here[path[-1]] = value

    return change


OWN = ("containers", 0, "securityContext")
CONTROLS: list[tuple[Control, Callable[[Manifest], None]]] = [
    (no_host_process, changed(*OWN, "windowsOptions", value={"hostProcess": True})),
    (no_host_namespaces, changed("hostNetwork", value=True)),
    (not_privileged, changed(*OWN, "privileged", value=True)),
    (no_host_path, changed("volumes", value=[{"name": "x", "hostPath": {"path": "/"}}])),
    (no_host_ports, changed("containers", 0, "ports", value=[{"containerPort": 1, "hostPort": 1}])),
    (no_host_in_probes, changed("containers", 0, "livenessProbe", value={"tcpSocket": {"port": 1, "host": "a"}})),
    (apparmor_of_the_runtime, changed("securityContext", "appArmorProfile", value={"type": "Unconfined"})),
    (selinux_of_the_runtime, changed("securityContext", "seLinuxOptions", value={"type": "spc_t"})),
    (default_proc_mount, changed(*OWN, "procMount", value="Unmasked")),
    (safe_sysctls, changed("securityContext", "sysctls", value=[{"name": "net.ipv4.tcp_retries2", "value": "5"}])),
    (restricted_volume_types, changed("volumes", value=[{"name": "x", "nfs": {"server": "a", "path": "/"}}])),
    (no_privilege_escalation, changed(*OWN, "allowPrivilegeEscalation", value=None)),
    (runs_as_non_root, changed("securityContext", "runAsNonRoot", value=None)),
    (runs_as_no_root_user, changed(*OWN, "runAsUser", value=0)),
    (seccomp_of_the_runtime, changed("securityContext", "seccompProfile", value={})),
    (drops_all_capabilities, changed(*OWN, "capabilities", value={"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
    (read_only_root, changed(*OWN, "readOnlyRootFilesystem", value=False)),
]


def name_of(control: object) -> str:
    return getattr(control, "__name__", "")


@pytest.mark.parametrize(("control", "violate"), CONTROLS, ids=name_of)
def test_every_pod_meets_the_control(
    chart: Chart, values: str, control: Control, violate: Callable[[Manifest], None]
) -> None:
    found = list(pods(chart.render(values)))
    assert {name.rpartition("-")[2] for name, _ in found} >= {"superlink", "supernode", "api"}
    for name, pod in found:
        assert control(pod), name
        broken = copy.deepcopy(pod)
        violate(broken)
        assert not control(broken), "a control that cannot fail"


def test_no_pod_but_the_hook_has_a_token_of_the_api_server(chart: Chart, values: str) -> None:
    tokens = {name for name, pod in pods(chart.render(values)) if pod["automountServiceAccountToken"]}
    assert tokens == {name for name, _ in pods(chart.render(values)) if name.endswith("-secrets")}
