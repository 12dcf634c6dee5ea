"""What took long to work out is kept, until anything that decides it changes."""

import pytest
import torch

from peppp import cache
from peppp.advise.peaks import Steps
from peppp.cache import folder, kept
from peppp.formats import FP32_CONFIGURATION, paper_grid
from peppp.precisions.known import parse_precision
from peppp.records import Recipe
from peppp.tasks.dataset import blank_images
from peppp.training import planning, sizes, step

RECIPE = Recipe(network="resnet8-w8", batch_size=16)
IMAGES = blank_images(3, 16, 64)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PEPPP_CACHE", str(tmp_path))
    monkeypatch.setattr(step, "_FOUND", {})


def numbers(key, made):
    """A list that is kept under a key, and whether it was made now."""
    calls = []
    value = kept("numbers", key, lambda: calls.append(1) or made, to_plain=list, from_plain=tuple)
    return value, bool(calls)


def test_a_value_is_made_once_and_read_as_it_was_made():
    assert numbers(("a", 1), (1, 2.5)) == ((1, 2.5), True)
    assert numbers(("a", 1), ()) == ((1, 2.5), False)
    assert numbers(("a", 2), (3,)) == ((3,), True)


@pytest.mark.parametrize("broken", ["", "{", "null", "[1, 2"])
def test_a_broken_file_is_made_again(broken):
    numbers("a", (1,))
    (path,) = folder("numbers").iterdir()
    path.write_text(broken)
    assert numbers("a", (2,)) == ((2,), True)
    assert numbers("a", ()) == ((2,), False)


def test_another_version_of_the_code_makes_it_again(monkeypatch):
    numbers("a", (1,))
    monkeypatch.setattr(cache, "_code", lambda: "another")
    assert numbers("a", (2,)) == ((2,), True)


def test_where_nothing_can_be_written_the_value_is_returned(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEPPP_CACHE", str(tmp_path / "file"))
    assert numbers("a", (1,)) == ((1,), True)
    assert numbers("a", (1,)) == ((1,), True)


def refuse(*_, **__):
    raise AssertionError("worked out again")


def in_a_new_process(monkeypatch):
    """Forget what this process knows, and let nothing be rehearsed or counted."""
    monkeypatch.setattr(step, "_FOUND", {})
    for module, name in [
        (planning, "rehearse_on"),
        (planning, "rehearse_training"),
        (planning, "observed"),
        (sizes, "rehearse_training"),
        (sizes, "count_elements"),
    ]:
        monkeypatch.setattr(module, name, refuse)


def test_the_next_process_rehearses_no_step_again_whatever_the_budget_and_the_format(monkeypatch):
    first = Steps(IMAGES, RECIPE)
    narrow, wide = (first.within(None, c) for c in (paper_grid()[0], paper_grid()[98]))
    budget = first.within(None, FP32_CONFIGURATION).peak * 19 // 20  # for which blocks are recomputed
    recomputed = first.within(budget, FP32_CONFIGURATION)
    assert recomputed.recomputation.blocks
    in_a_new_process(monkeypatch)
    again = Steps(IMAGES, RECIPE)
    assert again.within(budget, FP32_CONFIGURATION) == recomputed
    assert [again.within(None, c) for c in (paper_grid()[0], paper_grid()[98])] == [narrow, wide]
    with pytest.raises(AssertionError, match="worked out again"):
        Steps(blank_images(3, 24, 64), RECIPE).within(None, paper_grid()[0])


def test_threads_decide_what_a_step_takes(monkeypatch):
    Steps(IMAGES, RECIPE).within(None, paper_grid()[0])
    in_a_new_process(monkeypatch)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(AssertionError, match="worked out again"):
            Steps(IMAGES, RECIPE).within(None, paper_grid()[0])
    finally:
        torch.set_num_threads(threads)


def test_footprints_are_kept_for_pairs_and_for_names(monkeypatch):
    precisions = [paper_grid()[5], parse_precision("amp-bf16")]
    first = [sizes.footprint(IMAGES, precision, RECIPE) for precision in precisions]
    in_a_new_process(monkeypatch)
    assert [sizes.footprint(IMAGES, precision, RECIPE) for precision in precisions] == first


def test_what_a_users_own_code_decides_is_kept_in_the_process_only(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    own = Recipe(network="tests_of_cache:net", batch_size=16)
    (tmp_path / "tests_of_cache.py").write_text(
        "from torch import nn\n"
        "def net(classes, channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 256, 8), nn.Linear(8, classes))\n"
    )
    Steps(IMAGES, own).within(None, paper_grid()[0])
    assert not folder("steps").exists()
