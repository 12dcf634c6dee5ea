import numpy as np
import pytest

from peppp.formats import parse_format
from peppp.learn.descriptors import describe
from peppp.learn.noise_free import coordinates
from peppp.table.labels import parse_label


@pytest.mark.parametrize(
    "text", ["mx-1-4-3/32", "nvfp4", "scaled-1-4-3", "int8", "fixed-8-6", "bf16", "1-2-1@ocp", "dynamic8/256"]
)
def test_every_kind_of_format_is_described(text):
    precision, span = describe(parse_format(text))
    assert 0 <= precision <= 23
    assert 0 < span <= 8


def test_precisions_by_name_lie_where_their_formats_do():
    labels = ["fp32/fp32", "1-4-1/1-6-7", "bf16", "amp-bf16", "mxfp8-all", "fp32-sgd8bit"]
    found = coordinates(tuple(map(parse_label, labels)))
    by = dict(zip(labels, found, strict=True))
    assert by["1-4-1/1-6-7"].tolist() == [1, 4, 7, 6]
    assert by["bf16"].tolist() == [7, 8, 7, 8]
    # float32 lies a bit beyond the others, whether it is all or one side.
    assert by["fp32/fp32"].tolist() == by["fp32-sgd8bit"].tolist() == [8, 9, 8, 9]
    assert by["amp-bf16"].tolist() == [7, 8, 8, 9]
    assert by["mxfp8-all"].tolist() == [3, 6, 8, 9]
    assert coordinates((parse_label("a text"),)) is None
    assert np.isfinite(coordinates((parse_label("fp32-sgd8bit"),))).all()
