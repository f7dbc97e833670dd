"""Our Flower in place of the app's, and the build of a framework that fits the fleet."""

import pytest
from packaging.requirements import Requirement

from bouquet.host.packages.requirement_rules import adapt, overrides

FLOWER = Requirement("flwr==1.34.0")


def adapted(text: str, *, gpus: bool) -> list[str]:
    return [str(each) for each in adapt([Requirement(text)], FLOWER, gpus=gpus)]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("flwr>=1.27", "flwr==1.34.0"),
        ("flwr[simulation]>=1.27.0", "flwr==1.34.0"),
        ("flwr[simulation,rest]>=1.27.0", "flwr[rest]==1.34.0"),
    ],
)
def test_an_app_gets_our_flower_without_its_simulation(asked: str, given: str) -> None:
    assert adapted(asked, gpus=False) == adapted(asked, gpus=True) == [given]


CPU = 'tensorflow-cpu{0}; {1}platform_machine == "x86_64"'
OTHER = 'tensorflow{0}; {1}platform_machine != "x86_64"'


@pytest.mark.parametrize("asked", ["tensorflow", "tensorflow-cpu", "tensorflow[and-cuda]", "Tensorflow"])
def test_tensorflow_is_built_for_the_cpu_or_comes_with_cuda(asked: str) -> None:
    assert adapted(f"{asked}>=2.9", gpus=False) == [CPU.format(">=2.9", ""), OTHER.format(">=2.9", "")]
    assert adapted(f"{asked}>=2.9", gpus=True) == ["tensorflow[and-cuda]>=2.9"]


def test_a_condition_of_the_app_stays_whole() -> None:
    asked = "tensorflow; python_version < '3.12' or sys_platform == 'linux'"
    condition = '(python_version < "3.12" or sys_platform == "linux") and '
    assert adapted(asked, gpus=False) == [CPU.format("", condition), OTHER.format("", condition)]


def test_jax_gets_cuda_only_where_there_are_gpus() -> None:
    assert adapted("jax>=0.5", gpus=True) == ["jax[cuda12]>=0.5"]
    assert adapted("jax[cuda13]", gpus=True) == ["jax[cuda13]"]
    assert adapted("jax[cuda13,k8s]", gpus=False) == ["jax[k8s]"]


@pytest.mark.parametrize("gpus", [False, True])
def test_other_packages_stay_as_they_are(gpus: bool) -> None:
    assert adapted('torch==2.8.0; sys_platform == "linux"', gpus=gpus) == ['torch==2.8.0; sys_platform == "linux"']


def test_a_package_that_asks_for_tensorflow_gets_the_one_build_of_the_app() -> None:
    requirements = adapt([Requirement("tensorflow>=2.9"), Requirement("numpy")], FLOWER, gpus=False)
    assert [str(each) for each in overrides(requirements, FLOWER)] == [
        "flwr==1.34.0",
        CPU.format(">=2.9", ""),
        OTHER.format(">=2.9", ""),
    ]
