"""Networks and training loops of other packages: ten of the networks of benchmarks/zoo.py, and its loops."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from zoo_case import installed
from zoo_judge import judged
from zoo_loops import LOOPS, looped
from zoo_networks import cases

CASES = cases()
# name: whether the package has a switch for recomputation that works there
TEN = {
    "torchvision/mobilenet_v3_small": False,
    "torchvision/densenet": True,
    "timm/mobilenetv3_small_050": True,
    "timm/cait_xxs24_224": True,
    "transformers/deberta": True,
    "transformers/llama": True,
    "diffusers/dit": True,
    "torch-geometric/ARMAConv": False,
    "pytorchcv/resnet20_cifar10": False,
    "vit-pytorch/vit": False,
}
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PAGE = Path(__file__).parents[1] / "docs" / "numbers.md"
pytestmark = pytest.mark.filterwarnings("ignore")  # the packages' own


def needs(package):
    if installed(package) is None:
        pytest.skip(f"{package} is missing: pip install 'peppp[zoo]'")


@pytest.mark.slow
@pytest.mark.parametrize("name", TEN)
def test_a_network_of_another_package_is_right_or_reported(name):
    needs(CASES[name].package)
    found = judged(CASES[name])
    assert found["verdict"] in ("right", "reported by name"), found
    again = found["recomputation"]
    assert again == ({"verdict": "right"} if TEN[name] else None)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_of_another_package_trains_as_one_by_hand_or_is_refused(name):
    needs(LOOPS[name].package)
    refused = "bf16" in name or "backward" in name
    assert looped(LOOPS[name])["verdict"] == ("refused in one line" if refused else "right")


def test_the_sums_in_the_docs_are_those_that_were_kept():
    specification = importlib.util.spec_from_file_location("zoo_of_others", BENCHMARKS / "zoo.py")
    zoo = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(zoo)
    kept = json.loads(zoo.RESULTS.read_text())
    lines = kept["lines"]
    assert {line["name"] for line in lines} == {*CASES, *(f"loops/{name}" for name in LOOPS)}
    assert kept["sums"] == zoo.sums(lines)
    assert "\n".join(zoo.summary(lines)) in PAGE.read_text()
    assert not [line["name"] for line in lines if line["verdict"] == "wrong"]
