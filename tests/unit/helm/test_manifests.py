"""What the chart renders: valid manifests, one source for each fact, and upgrades without surprises."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.unit.helm.conftest import CHART, VALUES, Chart, Manifest, containers, pods, script

PROJECT = CHART.parents[2]
chart_readme = script("chart_readme")
RELEASES = ("1.29", "1.33", "1.37")
MUTABLE = {
    "replicas",
    "template",
    "updateStrategy",
    "ordinals",
    "minReadySeconds",
    "persistentVolumeClaimRetentionPolicy",
}
"""What may change in the specification of a StatefulSet."""
ELSEWHERE = {
    "BOUQUET_SIZE_FILE": "no shared volume: the SuperLink knows the size from its nodes",
    "INSECURE": "never without TLS and keys",
    "HF_TOKEN_PATH": "hub.tokenSecret",
    "HF_HUB_OFFLINE": "hub.offline",
    "BOUQUET_HF_CACHE": "hub.existingClaim",
    "BOUQUET_DATASET": "dataset.existingClaim",
    "FLEET_BIND": "superlink.service.type",
    "grpc_proxy": "supernode.extraEnv",
    "PARTITION_ID": "the ordinal",
    "TASK_SLOT": "Swarm's; here POD_NAME",
    "NODE_CONFIG": "supernode.nodeConfig",
    "BOUQUET_NODE_CONFIG_FILE": "supernode.nodeConfig",
    "BOUQUET_NODE_CONFIG_DIGEST": "an annotation of the pods",
    "BOUQUET_MEMORY_LIMIT": "only where there is a limit",
    "TF_THREADS": "only SuperNodes train",
}
"""Variables of docker-compose.yml that the smallest release does not set, and why."""


def test_there_are_eight_sets_of_values() -> None:
    assert len(VALUES) == 8


def test_helm_lint_has_nothing_to_say(chart: Chart, values: str) -> None:
    done = chart.helm("lint", "--strict", str(CHART), "--values", str(next(v for v in VALUES if v.stem == values)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout + done.stderr


@pytest.mark.parametrize("release", RELEASES)
def test_every_manifest_is_valid(chart: Chart, values: str, release: str) -> None:
    for manifest in chart.render(values):
        if not manifest["apiVersion"].startswith("cert-manager.io/"):
            kubernetes_validate.validate(manifest, release, strict=True)


def test_the_validation_can_fail(chart: Chart) -> None:
    broken = json.loads(json.dumps(chart.one("StatefulSet", "-supernode", "minimal")))
    broken["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, RELEASES[0], strict=True)


def test_names_are_unique_and_labels_are_the_recommended_ones(chart: Chart, values: str) -> None:
    manifests = chart.render(values)
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(names) == len(set(names))
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "bouquet"
        assert labels["app.kubernetes.io/instance"] == "fleet"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert {"app.kubernetes.io/version", "app.kubernetes.io/part-of", "helm.sh/chart"} <= set(labels)


def test_a_selector_selects_its_own_pods_and_no_others(chart: Chart, values: str) -> None:
    sets = [m for m in chart.render(values) if m["kind"] == "StatefulSet"]
    for one in sets:
        for other in sets:
            labels = other["spec"]["template"]["metadata"]["labels"]
            selects = one["spec"]["selector"]["matchLabels"].items() <= labels.items()
            assert selects == (one is other)


# -- Upgrades


def immutable(manifest: Manifest) -> Any:
    """What Kubernetes refuses to change in a manifest."""
    spec = manifest.get("spec", {})
    match manifest["kind"]:
        case "StatefulSet":
            return {key: value for key, value in spec.items() if key not in MUTABLE}
        case "PersistentVolumeClaim":
            return {key: value for key, value in spec.items() if key != "resources"}
        case "Service":
            return spec.get("clusterIP")
        case "RoleBinding":
            return manifest["roleRef"]
    return None


def test_an_upgrade_to_any_other_values_and_version_keeps_immutable_fields(
    chart: Chart, values: str, tmp_path: Path
) -> None:
    newer = newer_chart(chart, tmp_path)
    storage = json.dumps(yaml.safe_load((CHART / "values.yaml").read_text())["superlink"])
    keep = ("fullnameOverride=null", *(f"superlink.{name}={part(storage, name)}" for name in ("state", "results")))
    before = {(m["kind"], m["metadata"]["name"]): immutable(m) for m in chart.render("minimal")}
    after = {(m["kind"], m["metadata"]["name"]): immutable(m) for m in newer.render(values, *keep)}
    shared = before.keys() & after.keys()
    assert {kind for kind, _ in shared} >= {"StatefulSet", "Service", "PersistentVolumeClaim"}
    for key in shared:
        assert before[key] == after[key], key


def part(values: str, name: str) -> str:
    return json.dumps(json.loads(values)[name])


def newer_chart(chart: Chart, folder: Path) -> Chart:
    """A copy of the chart with a later version."""
    for path in CHART.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(CHART)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    text = (folder / "Chart.yaml").read_text()
    (folder / "Chart.yaml").write_text(re.sub(r"(?m)^((?:app)?[vV]ersion): .*", r"\1: 9.9.9", text))
    return chart.at(folder)


def test_a_new_version_of_the_chart_restarts_no_pod(chart: Chart, values: str, tmp_path: Path) -> None:
    newer = newer_chart(chart, tmp_path)
    for manifest in chart.render(values):
        if manifest["kind"] == "StatefulSet":
            name = manifest["metadata"]["name"].rpartition("-")[2]
            assert newer.one("StatefulSet", name, values)["spec"] == manifest["spec"]


def test_a_change_of_size_changes_the_replicas_and_what_a_new_superlink_expects_and_nothing_else(chart: Chart) -> None:
    small, large = chart.render("minimal"), chart.render("minimal", "supernode.replicas=11")
    changed = [(a, b) for a, b in zip(small, large, strict=True) if a != b]
    assert [(b["kind"], b["metadata"]["name"]) for _, b in changed] == [
        ("ConfigMap", "fleet-bouquet-fleet"),
        ("StatefulSet", "fleet-bouquet-supernode"),
    ]
    assert changed[0][1]["data"] == {"supernodes": "11"}
    assert changed[1][0]["spec"] | {"replicas": 11} == changed[1][1]["spec"]


def test_changed_keys_of_the_node_config_restart_the_supernodes_only(chart: Chart) -> None:
    sets = ('supernode.nodeConfig="a = 1"',), ('supernode.nodeConfig="a = 2"',)
    for name, same in (("-superlink", True), ("-supernode", False)):
        first, second = (chart.one("StatefulSet", name, "minimal", *each)["spec"]["template"] for each in sets)
        assert (first == second) is same
    config = chart.one("ConfigMap", "-node-config", "everything")
    assert tomllib.loads(config["data"]["node-config.toml"]) == {"site": "north", "3": {"site": "south"}}


def test_claims_stay_when_the_release_is_uninstalled(chart: Chart) -> None:
    claims = [m for m in chart.render("everything") if m["kind"] == "PersistentVolumeClaim"]
    assert {m["metadata"]["name"] for m in claims} == {"cifar-state", "cifar-results", "cifar-cache"}
    assert all(m["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for m in claims)


@pytest.mark.parametrize(("given", "expected"), [("", None), ("-", ""), ("fast", "fast")])
def test_a_storage_class_is_the_default_none_or_a_name(chart: Chart, given: str, expected: str | None) -> None:
    claim = chart.one("PersistentVolumeClaim", "-state", "minimal", f'superlink.state.storageClass="{given}"')
    assert claim["spec"].get("storageClassName") == expected


# -- What the fleet is told


def environment(pod: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in containers(pod)[0]["env"]}


def spec(chart: Chart, role: str, values: str = "minimal", *sets: str) -> Manifest:
    pod: Manifest = chart.one("StatefulSet", f"-{role}", values, *sets)["spec"]["template"]["spec"]
    return pod


def test_every_variable_of_the_compose_file_is_set_or_named_as_a_difference(chart: Chart) -> None:
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text(encoding="utf-8"))
    for role in ("superlink", "supernode"):
        own = set(environment(spec(chart, role)))
        missing = set(compose["services"][role]["environment"]) - own
        assert missing <= set(ELSEWHERE), missing - set(ELSEWHERE)
    everywhere = set(compose["services"]["superlink"]["environment"]) | set(
        compose["services"]["supernode"]["environment"]
    )
    assert set(ELSEWHERE) <= everywhere, "a difference that is none"


def test_a_supernode_is_its_ordinal_and_learns_no_size(chart: Chart, values: str) -> None:
    variables = environment(spec(chart, "supernode", values))
    assert variables["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert "SUPERNODES" not in variables
    assert chart.one("StatefulSet", "-supernode", values)["spec"]["podManagementPolicy"] == "Parallel"


def test_supernodes_call_the_superlink_by_a_name_that_its_certificate_has(chart: Chart, values: str) -> None:
    host, _, port = environment(spec(chart, "supernode", values))["SUPERLINK"].partition(":")
    service = chart.one("Service", "-superlink", values)
    assert (service["metadata"]["name"], service["spec"]["ports"][0]["port"]) == (host, int(port))
    certificates = [m["spec"]["dnsNames"] for m in chart.render(values) if m["kind"] == "Certificate"]
    if certificates or values != "own-secrets":
        issued = environment(spec(chart, "superlink", values)).get("SUPERLINK_NAMES", "").split(",")
        assert host in (certificates[0] if certificates else issued)


def test_the_control_api_listens_on_loopback_and_no_service_has_it(chart: Chart, values: str) -> None:
    pod = spec(chart, "superlink", values)
    assert environment(pod)["CONTROL_ADDRESS"] == "127.0.0.1:9093"
    assert [port["containerPort"] for port in containers(pod)[0]["ports"]] == [9092]
    for manifest in chart.render(values):
        if manifest["kind"] == "Service":
            assert {port["port"] for port in manifest["spec"].get("ports", [])} <= {9092}


def test_every_folder_that_is_written_is_a_volume(chart: Chart, values: str) -> None:
    writable = {
        "superlink": {"/tmp", "/run/bouquet", *(f"/var/lib/bouquet/{name}" for name in ("state", "results", "cache"))},
        "supernode": {
            *("/tmp", "/run/bouquet"),
            *(f"/var/lib/bouquet/{name}" for name in ("cache", "leases", "identities")),
        },
    }
    for role, folders in writable.items():
        mounts = containers(spec(chart, role, values))[0]["volumeMounts"]
        assert folders <= {mount["mountPath"] for mount in mounts if not mount.get("readOnly")}
        paths = [mount["mountPath"] for mount in mounts]
        assert len(paths) == len(set(paths))


def test_every_mount_has_a_volume_and_every_volume_a_mount(chart: Chart, values: str) -> None:
    for name, pod in pods(chart.render(values)):
        volumes = [volume["name"] for volume in pod.get("volumes", [])]
        mounts = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        assert sorted(mounts) == sorted(volumes), name


def test_the_probes_answer_at_once_and_only_a_hanging_container_is_restarted(chart: Chart, values: str) -> None:
    for role in ("superlink", "supernode"):
        container = containers(spec(chart, role, values))[0]
        probes = {kind: container[f"{kind}Probe"]["exec"]["command"][-1] for kind in ("readiness", "liveness")}
        assert probes == {"readiness": "0", "liveness": "live"}
        module = Path(container["readinessProbe"]["exec"]["command"][-2])
        assert (PROJECT / "deploy" / module.relative_to("/opt/bouquet/lib")).exists()


# -- GPUs


@pytest.mark.parametrize(("values", "resource"), [("gpu", "nvidia.com/gpu"), ("mig", "nvidia.com/mig-1g.5gb")])
def test_a_supernode_requests_its_gpu_and_uses_what_it_is_assigned(chart: Chart, values: str, resource: str) -> None:
    pod = spec(chart, "supernode", values)
    assert containers(pod)[0]["resources"]["limits"][resource] == "1"
    assert environment(pod)["GPUS"] == "assigned"
    superlink = containers(spec(chart, "superlink", values))[0]
    assert not [name for name in superlink["resources"]["limits"] if "nvidia" in name]


def test_without_gpus_the_nodes_compute_on_the_cpu(chart: Chart) -> None:
    pod = spec(chart, "supernode")
    assert environment(pod)["GPUS"] == "none"
    assert set(containers(pod)[0]["resources"]["limits"]) == {"cpu", "memory"}


def test_amounts_of_resources_are_text(chart: Chart, values: str) -> None:
    for _, pod in pods(chart.render(values)):
        for container in containers(pod):
            for amounts in container["resources"].values():
                assert all(isinstance(amount, str) for amount in amounts.values()), amounts


# -- The chart's own documents


def test_the_readme_is_made_from_the_values() -> None:
    assert chart_readme.README.read_text(encoding="utf-8") == chart_readme.readme(), "python scripts/chart_readme.py"
    assert max(map(len, chart_readme.readme().splitlines())) <= 120


def test_every_value_is_described_and_in_the_schema_and_nothing_else_is() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    described = {value.path for value in chart_readme.read_values(text)}
    in_schema = {path for path in leaves(schema, described) if path != ("global",)}
    assert described == in_schema
    assert described == set(value_paths(yaml.safe_load(text), described))


def leaves(schema: dict[str, Any], known: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of a schema's properties, down to those that are described as one."""
    if path in known or "properties" not in schema:
        return [path]
    assert schema["additionalProperties"] is False, path
    return [leaf for key, below in schema["properties"].items() for leaf in leaves(below, known, (*path, key))]


def value_paths(values: Any, known: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if path in known or not isinstance(values, dict):
        return [path]
    return [leaf for key, below in values.items() for leaf in value_paths(below, known, (*path, key))]


def test_the_chart_has_the_version_of_the_project() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])


def test_the_notes_have_the_commands_for_this_release(chart: Chart) -> None:
    file = next(v for v in VALUES if v.stem == "exposed")
    release = ("fleet", str(CHART), "--namespace", "fleets", "--values", str(file))
    done = chart.helm("install", *release, "--dry-run=client", "--disable-openapi-validation")
    if "cluster unreachable" in done.stderr.lower():
        pytest.skip("this helm needs a cluster to show the notes")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "bouquet connection --kubernetes fleets/fleet" in notes
    assert "kubectl -n fleets scale statefulset/fleet-bouquet-supernode" in notes
    assert "reachable from outside the cluster" in notes
