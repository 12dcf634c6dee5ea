"""The catalog against Table 2 and Table 5 of the paper, and against its own class lists."""

import csv
import subprocess
import sys
from collections import Counter

import pytest

from peppp.errors import DataError
from peppp.tasks.catalog import E5_WORDNET_IDS, e5_sets, entries, find, imagenet_classes, table5


def test_the_87_sets_of_table_2():
    all_sets = entries()
    assert [entry.index for entry in all_sets] == list(range(1, 88))
    assert len({entry.slug for entry in all_sets}) == 87
    assert Counter(entry.family for entry in all_sets)["cifar"] == 21
    assert Counter(entry.family for entry in all_sets)["imagenet"] == 50
    assert Counter(entry.resolution for entry in all_sets) == {32: 21, 64: 66}
    assert all(entry.terms and entry.source and entry.points > 0 for entry in all_sets)


def test_all_50_imagenet_sets_add_up_to_the_papers_points():
    sets = [entry for entry in entries() if entry.family == "imagenet"]
    for entry in sets:
        classes = imagenet_classes(entry)
        assert tuple(sorted(entry.class_names)) == tuple(c.wordnet_id for c in classes)
        assert len(classes) == entry.classes
        assert sum(c.train_images + c.val_images for c in classes) == entry.points, entry.slug


def test_each_cifar100_set_has_five_classes_of_600_images_and_no_class_is_in_two():
    sets = [entry for entry in entries() if entry.source == "CIFAR-100"]
    names = [name for entry in sets for name in entry.class_names]
    assert len(sets) == 20
    assert len(names) == len(set(names)) == 100
    assert all(entry.points == 5 * 600 for entry in sets)


def test_table_5_and_e5():
    rows = table5()
    assert Counter(rate for _, rate in rows) == {0.01: 16, 0.001: 16, 0.0001: 13}
    assert [entry.index for entry, _ in rows[:16]] == list(range(2, 18))
    assert rows[15][0].name == "CIFAR100 (reptiles)"
    assert len(E5_WORDNET_IDS) == len(e5_sets()) == 10
    assert [entry.wordnet_id for entry in e5_sets()] == list(E5_WORDNET_IDS)


def test_the_catalog_says_what_the_paper_says(shared):
    with (shared / "paper" / "datasets.csv").open() as file:
        for entry, row in zip(entries(), csv.DictReader(file), strict=True):
            assert (entry.slug, entry.name) == (row["slug"], row["name"])
            assert (entry.resolution, entry.points) == (int(row["resolution"]), int(row["points"]))
            assert entry.definition == row["definition"]


def test_a_wrong_name_gets_the_nearest_ones():
    with pytest.raises(DataError, match="similar names: imagenet-bag"):
        find("imagenet-bags")


def test_it_can_be_read_without_torch():
    code = "import sys, peppp.tasks.catalog as c; c.entries(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
