"""Wrong values are refused with a message that names the value."""

import pytest

from tests.unit.helm.conftest import Chart

WRONG = [
    ("supernode.replica=5", "at '/supernode': additional properties 'replica' not allowed"),
    ("supernodes=5", "additional properties 'supernodes' not allowed"),
    ("supernode.replicas=0", "at '/supernode/replicas': minimum: got 0, want 1"),
    ("supernode.replicas=1001", "at '/supernode/replicas': maximum: got 1,001, want 1,000"),
    ('supernode.replicas="5"', "at '/supernode/replicas': got string, want integer"),
    ('image.tag="a:b"', "at '/image/tag': 'a:b' does not match pattern"),
    ('image.tag=""', "image.tag is not set: give the tag of your images"),
    ("image.tag=1.5", "at '/image/tag': got number, want string"),
    ('image.pullPolicy="always"', "at '/image/pullPolicy': value must be one of 'IfNotPresent', 'Always', 'Never'"),
    ('executor.kind="hot"', "at '/executor/kind': value must be one of 'warm', 'stock'"),
    ("executor.workers=65", "at '/executor/workers': maximum: got 65, want 64"),
    ('supernode.gpu.resource="amd.com/gpu"', "at '/supernode/gpu/resource': 'amd.com/gpu' does not match pattern"),
    ('supernode.gpu.memory="4Gi"', "at '/supernode/gpu/memory': '4Gi' does not match pattern"),
    ('superlink.resources.limits.memory="4Gb"', "at '/superlink/resources/limits/memory'"),
    ('superlink.state.size="big"', "at '/superlink/state/size': 'big' does not match pattern"),
    ('superlink.names=["a b"]', "at '/superlink/names/0': 'a b' does not match pattern"),
    ('superlink.service.type="ExternalName"', "at '/superlink/service/type': value must be one of"),
    ("tls.certManager.enabled=true", "at '/tls/certManager/issuerRef': missing property 'name'"),
    ('networkPolicy.privateRanges=["10.0.0.0"]', "at '/networkPolicy/privateRanges/0': '10.0.0.0' does not match"),
    ('supernode.podLabels={"app.kubernetes.io/name": "x"}', "supernode.podLabels: the label app.kubernetes.io/name is"),
    ('commonLabels={"helm.sh/chart": "x"}', "commonLabels: the label helm.sh/chart is the chart's own"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[wrong for wrong, _ in WRONG])
def test_a_wrong_value_is_refused_and_named(chart: Chart, wrong: str, message: str) -> None:
    done = chart.try_render("minimal", wrong)
    assert done.returncode != 0
    assert message in done.stderr


def test_two_sources_of_the_certificate_are_refused(chart: Chart) -> None:
    done = chart.try_render("cert-manager", 'tls.existingSecret="ours"')
    assert done.returncode != 0
    assert "tls.existingSecret and tls.certManager.enabled exclude each other" in done.stderr


def test_a_parent_chart_may_pass_global_values(chart: Chart) -> None:
    assert chart.try_render("minimal", 'global.registry="x"').returncode == 0
