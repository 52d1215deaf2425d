"""Normalised weight decay: the shrinks of the runs it was proposed for, worked out by hand."""

import pytest

from bayesfilt.theory import normalised_weight_decay


@pytest.mark.equation("DICT-3")
def test_check_C7_normalised_decay_falls_with_the_root_of_the_number_of_steps():
    cifar = normalised_weight_decay(0.025, 128, 50_000, 100)
    assert cifar == pytest.approx(1.265e-4, rel=1e-3)
    epochs_remembered = 1 / cifar / (50_000 / 128)
    assert epochs_remembered == pytest.approx(20.2, rel=5e-3)
    longer = normalised_weight_decay(0.025, 128, 50_000, 1_800)
    assert 1 / longer / (50_000 / 128) == pytest.approx(86, rel=5e-3)
    # A set 25.6 times larger, in the same number of epochs, decays 5.06 times less per step.
    larger = normalised_weight_decay(0.025, 128, 1_280_000, 100)
    assert cifar / larger == pytest.approx(5.06, abs=5e-3)
    # Four times the batch, half the steps' root: the shrink of a run of N T/b steps.
    assert normalised_weight_decay(0.025, 512, 50_000, 100) == pytest.approx(2 * cifar, rel=1e-12)
