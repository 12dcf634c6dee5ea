import numpy as np
import pytest

from peppp.errors import BudgetError, TableError
from peppp.table.sampling import nonuniform, uniform

SHAPES = [(1, 1), (3, 99), (20, 99), (99, 3), (50, 40)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 1.0])
def test_uniform_leaves_no_row_and_no_column_empty(shape, share):
    for seed in range(5):
        mask = uniform(shape, share, seed=seed)
        counts = mask.sum(axis=1)
        assert mask.shape == shape
        assert counts.min() == counts.max() >= 1
        assert mask.any(axis=0).all()


def test_uniform_takes_the_share_that_was_asked_for():
    assert (uniform((20, 99), 0.2, seed=0).sum(axis=1) == 20).all()
    assert uniform((20, 99), 1.0, seed=0).all()


def test_uniform_raises_a_share_only_to_cover_the_columns():
    assert uniform((2, 99), 0.1, seed=0).sum() == 100
    kept = uniform((2, 99), 0.1, seed=0, every_column=False)
    assert (kept.sum(axis=1) == 10).all()
    assert kept.any(axis=0).sum() == 20  # none twice while others are empty


def test_uniform_draws_each_entry_alike():
    often = np.mean([uniform((8, 10), 0.3, seed=seed) for seed in range(2000)], axis=0)
    assert np.abs(often - 0.3).max() < 4 * np.sqrt(0.3 * 0.7 / 2000)


def test_a_draw_depends_on_the_seed_and_earlier_rows_not_on_later_ones():
    mask = uniform((20, 99), 0.3, seed=1)
    assert (mask == uniform((20, 99), 0.3, seed=1)).all()
    assert (mask != uniform((20, 99), 0.3, seed=2)).any()
    assert (mask == uniform((30, 99), 0.3, seed=1)[:20]).all()
    assert (mask <= uniform((20, 99), 0.6, seed=1)).all()


def test_probabilities_are_the_distribution_of_cheapness():
    memory = np.array([[1.0, 2.0, 2.0], [4.0, 8.0, 16.0]])
    _, P = nonuniform(memory, p_max=0.6, seed=0)
    assert pytest.approx(np.array([[6, 4.5, 4.5], [3, 2, 1]]) / 10) == P


def test_a_share_becomes_the_mean_probability():
    memory = np.random.default_rng(0).integers(1, 50, (30, 99)).astype(float)
    mask, P = nonuniform(memory, share=0.2, seed=0)
    assert P.mean() == pytest.approx(0.2)
    assert P.max() < 0.41
    assert abs(mask.mean() - 0.2) < 4 * np.sqrt((P * (1 - P)).sum()) / P.size
    assert memory[mask].mean() < memory.mean()


def test_nonuniform_leaves_no_row_and_no_column_empty():
    memory = np.random.default_rng(0).random((40, 30)) + 1
    memory[0] *= 1e6
    memory[:, 0] *= 1e6
    for seed in range(20):
        mask, _ = nonuniform(memory, p_max=0.02, seed=seed)
        assert mask.any(axis=0).all()
        assert mask.any(axis=1).all()
    assert (nonuniform(memory, p_max=0.5, seed=3)[0] == nonuniform(memory, p_max=0.5, seed=3)[0]).all()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(BudgetError, match="above 0, up to 1"):
        uniform((3, 3), share, seed=0)


def test_nonuniform_refuses_what_it_cannot_do():
    memory = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(BudgetError, match=r"up to 0\.625"):
        nonuniform(memory, share=0.7, seed=0)
    for p_max in (0.0, 1.1):
        with pytest.raises(BudgetError, match="not a probability"):
            nonuniform(memory, p_max=p_max, seed=0)
    for both in ({}, {"p_max": 0.5, "share": 0.2}):
        with pytest.raises(BudgetError, match="one of them"):
            nonuniform(memory, **both, seed=0)
    for bad in (np.array([[1.0, 0.0]]), np.array([[1.0, np.nan]]), np.ones(3), np.ones((0, 3))):
        with pytest.raises(TableError, match="positive number of bytes"):
            nonuniform(bad, p_max=0.5, seed=0)
