"""Networks that were right train to the same bits as at d9393c7, on machines that have digests of it."""

import json
import statistics

import pytest

from fixtures.make_digests import FILE, NETWORKS, QUICK, cases, digest, machine
from peppp.campaign.worker import load_data, measure_cell
from peppp.campaign.worker import source as source_of
from peppp.table.select import read_measurements
from peppp.tasks.readers import load

KNOWN = json.loads(FILE.read_text()).get(machine())


@pytest.mark.skipif(KNOWN is None, reason=f"no digests of {machine()}")
@pytest.mark.parametrize(
    ("network", "configuration", "rounding"),
    [
        *cases(QUICK),
        *(
            pytest.param(*c, marks=pytest.mark.slow)
            for c in cases(tuple(n for n in NETWORKS if n not in QUICK))
        ),
    ],
)
def test_digests_of_weights_after_20_steps_are_those_recorded(network, configuration, rounding):
    assert digest(network, configuration, rounding) == KNOWN[f"{network} {configuration} {rounding}"]


@pytest.mark.skipif(KNOWN is not None, reason="this machine has digests, which say more")
@pytest.mark.parametrize("configuration", ["1-4-1/1-7-9", "1-4-3/1-7-9"])
def test_digests_elsewhere_rows_of_the_shipped_table_come_out_within_three_deviations(shared, configuration):
    """Another processor's bits differ a little, and a training then ends as one of another seed would."""
    runs = [
        m
        for m in read_measurements("src/peppp/data/table.csv.gz")
        if m.task == "mnist"
        and m.recipe.network == "resnet8"
        and m.recipe.learning_rate == 0.001
        and str(m.configuration) == configuration
        and m.recipe.min_steps == 500
        and m.recipe.epochs == 10
        and m.recipe.accumulator
        and str(m.recipe.rounding) == "stochastic"
    ]
    errors = [m.test_error for m in runs]
    text = f"npz:{shared / 'data' / 'mnist.npz'}?train=1600&test=2000&resolution=8&group=mnist"
    data = load(text)
    assert data.fingerprint == runs[0].fingerprint
    cell = source_of(text, data).cell(runs[0].configuration, runs[0].recipe, runs[0].seed)
    again = measure_cell(cell, load_data(cell))
    assert abs(again.test_error - runs[0].test_error) <= 3 * max(statistics.stdev(errors), 0.01)
