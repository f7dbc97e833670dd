"""Who can reach whom, and who has which secret."""

import ipaddress
from typing import Any

import pytest

from tests.unit.helm.conftest import Chart, Manifest, containers

BASE = {"app.kubernetes.io/name": "bouquet", "app.kubernetes.io/instance": "fleet"}
STRANGER = {"app.kubernetes.io/name": "other"}
OTHER_RELEASE = {**BASE, "app.kubernetes.io/instance": "fleet2", "app.kubernetes.io/component": "supernode"}


def member(role: str) -> dict[str, str]:
    return {**BASE, "app.kubernetes.io/component": role}


SUPERLINK, SUPERNODE, HOOK, TEST = (member(role) for role in ("superlink", "supernode", "secrets", "test"))


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def matches(peer: dict[str, Any], other: dict[str, str] | str) -> bool:
    """Whether a peer of a rule is a pod with these labels in the same namespace, or contains an address."""
    if isinstance(other, str):
        block = peer.get("ipBlock")
        address = ipaddress.ip_address(other)
        return block is not None and (
            address in ipaddress.ip_network(block["cidr"])
            and not any(address in ipaddress.ip_network(each) for each in block.get("except", []))
        )
    if "podSelector" in peer:
        return selects(peer["podSelector"], other)
    return "namespaceSelector" in peer and not peer["namespaceSelector"]


def permitted(
    policies: list[Manifest], direction: str, of: dict[str, str], other: dict[str, str] | str, port: int
) -> bool:
    """Whether the policies that select a pod let traffic in one direction pass, as a network plugin decides."""
    ours = [p["spec"] for p in policies if selects(p["spec"]["podSelector"], of)]
    ours = [p for p in ours if direction.capitalize() in p["policyTypes"]]
    if not ours:
        return True
    rules = [rule for p in ours for rule in p.get(direction, [])]
    peers = "from" if direction == "ingress" else "to"
    return any(
        ("ports" not in rule or any(each["port"] == port for each in rule["ports"]))
        and (peers not in rule or any(matches(peer, other) for peer in rule[peers]))
        for rule in rules
    )


def reaches(policies: list[Manifest], source: dict[str, str], target: dict[str, str], port: int) -> bool:
    """Whether one pod can connect to another."""
    return permitted(policies, "egress", source, target, port) and permitted(policies, "ingress", target, source, port)


def policies(chart: Chart, values: str = "minimal", *sets: str) -> list[Manifest]:
    return [m for m in chart.render(values, *sets) if m["kind"] == "NetworkPolicy"]


def test_a_supernode_reaches_the_fleet_api_and_nothing_else_of_the_fleet(chart: Chart, values: str) -> None:
    ours = policies(chart, values)
    assert reaches(ours, SUPERNODE, SUPERLINK, 9092)
    assert reaches(ours, TEST, SUPERLINK, 9092)
    for port in (9091, 9093, 9094, 22):
        assert not reaches(ours, SUPERNODE, SUPERLINK, port)
        assert not reaches(ours, SUPERNODE, SUPERNODE, port)
    assert not reaches(ours, SUPERLINK, SUPERNODE, 9092)


@pytest.mark.parametrize("stranger", [STRANGER, OTHER_RELEASE, HOOK], ids=["stranger", "other release", "hook"])
def test_no_other_pod_reaches_the_fleet(chart: Chart, values: str, stranger: dict[str, str]) -> None:
    for target in (SUPERLINK, SUPERNODE, HOOK):
        for port in (9091, 9092, 9093, 53, 443):
            assert not reaches(policies(chart, values), stranger, target, port)


def test_members_reach_the_dns_and_the_hub_but_no_private_address(chart: Chart) -> None:
    for source in (SUPERLINK, SUPERNODE):
        ours = policies(chart)
        assert permitted(ours, "egress", source, STRANGER, 53)
        assert permitted(ours, "egress", source, "169.254.20.10", 53)
        assert not permitted(ours, "egress", source, "203.0.113.1", 53)
        assert permitted(ours, "egress", source, "203.0.113.1", 443)
        assert not permitted(ours, "egress", source, "203.0.113.1", 80)
        for private in ("10.0.0.1", "169.254.169.254", "172.17.0.1", "192.168.1.1"):
            assert not permitted(ours, "egress", source, private, 443)


def test_an_offline_fleet_reaches_no_address(chart: Chart) -> None:
    assert not permitted(policies(chart, "offline"), "egress", SUPERNODE, "203.0.113.1", 443)


def test_further_peers_are_those_in_the_values(chart: Chart) -> None:
    ours = policies(chart, "exposed")
    assert permitted(ours, "ingress", SUPERLINK, "192.0.2.9", 9092)
    assert not permitted(ours, "ingress", SUPERLINK, "192.0.2.9", 9093)
    assert not permitted(ours, "ingress", SUPERLINK, "198.51.100.1", 9092)
    assert permitted(ours, "egress", SUPERNODE, "10.1.2.3", 3128)


def test_the_hook_reaches_an_api_server_and_nobody_reaches_the_hook(chart: Chart) -> None:
    ours = policies(chart)
    assert permitted(ours, "egress", HOOK, "10.0.0.1", 6443)
    assert not permitted(ours, "egress", HOOK, "203.0.113.1", 80)
    assert not permitted(ours, "ingress", HOOK, STRANGER, 443)


def test_without_policies_there_are_none(chart: Chart) -> None:
    assert policies(chart, "minimal", "networkPolicy.enabled=false") == []


# -- Secrets


def secrets_of(chart: Chart, role: str, values: str, *sets: str) -> dict[str, set[str]]:
    """By Secret, the keys that a role's pods mount; `*` for all."""
    pod = chart.one("StatefulSet", f"-{role}", values, *sets)["spec"]["template"]["spec"]
    found: dict[str, set[str]] = {}
    for volume in pod["volumes"]:
        if secret := volume.get("secret"):
            keys = {item["key"] for item in secret.get("items", [{"key": "*"}])}
            found.setdefault(secret["secretName"], set()).update(keys)
    return found


def test_only_the_superlink_has_the_key_of_the_ca(chart: Chart) -> None:
    assert secrets_of(chart, "superlink", "minimal") == {
        "fleet-bouquet-authority": {"*"},
        "fleet-bouquet-seed": {"seed"},
    }
    assert secrets_of(chart, "supernode", "minimal") == {
        "fleet-bouquet-ca": {"ca.crt"},
        "fleet-bouquet-seed": {"seed"},
    }


@pytest.mark.parametrize(
    ("values", "secret"), [("cert-manager", "fleet-bouquet-tls"), ("own-secrets", "our-certificate")]
)
def test_a_certificate_of_the_users_own_is_served_and_trusted(chart: Chart, values: str, secret: str) -> None:
    assert secrets_of(chart, "superlink", values)[secret] == {"tls.crt", "tls.key", "ca.crt"}
    assert secrets_of(chart, "supernode", values)[secret] == {"ca.crt"}
    pod = chart.one("StatefulSet", "-superlink", values)["spec"]["template"]["spec"]
    assert "BOUQUET_ISSUE_CERTIFICATE" not in {each["name"] for each in containers(pod)[0]["env"]}


def test_the_hook_creates_only_what_is_mounted_and_may_read_only_that(chart: Chart, values: str) -> None:
    jobs = [m for m in chart.render(values) if m["kind"] == "Job"]
    created = set()
    for job in jobs:
        variables = containers(job["spec"]["template"]["spec"])[0]["env"]
        created = {each["value"] for each in variables if each["name"].endswith("_SECRET")}
    mounted = {*secrets_of(chart, "superlink", values), *secrets_of(chart, "supernode", values)}
    assert created <= mounted
    assert mounted - created <= {"our-certificate", "our-seed", "fleet-bouquet-tls", "hub"}
    roles = [m["rules"] for m in chart.render(values) if m["kind"] == "Role"]
    assert len(roles) == len(jobs)
    for rules in roles:
        assert {verb for rule in rules for verb in rule["verbs"]} == {"create", "get"}
        assert all(rule["resources"] == ["secrets"] for rule in rules)
        (readable,) = (set(rule["resourceNames"]) for rule in rules if "get" in rule["verbs"])
        assert readable == created


def test_with_secrets_of_the_users_own_no_hook_runs(chart: Chart) -> None:
    kinds = {m["kind"] for m in chart.render("own-secrets")}
    assert not kinds & {"Job", "Role", "RoleBinding", "ServiceAccount", "PersistentVolumeClaim", "Secret"}


def test_no_secret_is_a_manifest_which_an_upgrade_would_overwrite(chart: Chart, values: str) -> None:
    assert "Secret" not in {m["kind"] for m in chart.render(values)}


def test_the_hooks_role_is_there_before_its_job_and_goes_with_it(chart: Chart) -> None:
    weights = {}
    for manifest in chart.render("minimal"):
        annotations = manifest["metadata"].get("annotations", {})
        if annotations.get("helm.sh/hook") == "pre-install,pre-upgrade":
            weights[manifest["kind"]] = int(annotations["helm.sh/hook-weight"])
            assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert set(weights) == {"ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Job"}
    assert max(weights, key=weights.__getitem__) == "Job"
