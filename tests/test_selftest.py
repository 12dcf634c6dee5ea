import torch

import peppp.lowprec.rounding.selftest as selftest
from peppp.lowprec.rounding import kernels
from peppp.lowprec.rounding.quantize import quantize


def verdicts():
    return {check.name: check.passed for check in selftest.self_test()}


def test_all_is_well_here():
    assert False not in verdicts().values()


def test_it_notices_a_flush_to_zero_and_still_passes():
    assert not selftest.flushes_subnormals()
    if torch.set_flush_denormal(True):
        try:
            assert selftest.flushes_subnormals()
            assert False not in verdicts().values()
        finally:
            torch.set_flush_denormal(False)


def test_it_notices_a_rounding_that_is_wrong(monkeypatch):
    monkeypatch.setattr(selftest, "quantize", lambda x, *rest, **named: quantize(x, *rest, **named) * 1.5)
    assert list(verdicts().values()).count(False) == 3


def test_it_notices_ties_that_go_to_even(monkeypatch):
    def to_even(x, fmt, *rest, **named):
        return quantize(x, type(fmt)(fmt.exponent_bits, fmt.mantissa_bits, "ieee"), *rest, **named)

    monkeypatch.setattr(selftest, "quantize", to_even)
    assert verdicts()["every value and tie of the 11 Formats A"] is False


def test_it_says_when_there_are_no_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "_loops", lambda: None)
    details = {check.name: check.detail for check in selftest.self_test()}
    assert details["compiled kernels"].startswith("not in use")
