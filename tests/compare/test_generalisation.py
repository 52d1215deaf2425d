"""Anytime curves and errors at matched training loss, where the answer was put in by hand."""

import jax
import numpy as np
import pytest

from bayesfilt.compare import anytime, error_at_matched_loss

KEY = jax.random.key(0)


def test_the_anytime_curve_is_of_the_cell_that_ends_best_and_the_envelope_of_every_step():
    early = np.broadcast_to(np.linspace(0.5, 0.4, 6), (4, 6))
    late = np.broadcast_to(np.linspace(0.9, 0.1, 6), (4, 6))
    found = anytime(KEY, np.stack([early, late]), num_resamples=20)
    np.testing.assert_allclose(found.error, late[0])
    np.testing.assert_allclose(found.envelope, np.minimum(early[0], late[0]))
    np.testing.assert_allclose(found.low, found.error)
    np.testing.assert_allclose(found.high, found.error)


def test_a_cell_that_diverges_before_the_end_is_no_curve_to_follow():
    fast = np.broadcast_to([0.9, 0.1, np.nan], (3, 3))
    slow = np.broadcast_to([0.9, 0.8, 0.7], (3, 3))
    found = anytime(KEY, np.stack([fast, slow]), num_resamples=20)
    np.testing.assert_allclose(found.error, slow[0])
    np.testing.assert_allclose(found.envelope, [0.9, 0.1, 0.7])


def test_the_interval_of_a_curve_lies_within_its_seeds():
    errors = np.random.default_rng(0).uniform(0.2, 0.8, size=(1, 7, 5))
    found = anytime(KEY, errors, num_resamples=100)
    assert (found.low >= errors[0].min(axis=0)).all()
    assert (found.high <= errors[0].max(axis=0)).all()
    assert ((found.low <= found.error) & (found.error <= found.high)).all()


def matched(gap, *, cells=60, seeds=5, shift=1.0):
    """Two optimizers whose error rises with the training loss, `gap` apart at equal loss."""
    generator = np.random.default_rng(0)
    losses = [
        np.exp(generator.uniform(-3, 1, size=(cells, seeds))) * factor for factor in (1.0, shift)
    ]
    errors = [
        0.1 * np.log(loss) + offset + 0.001 * generator.standard_normal(loss.shape)
        for loss, offset in zip(losses, (1.0 + gap, 1.0), strict=True)
    ]
    return tuple(losses), tuple(errors)


@pytest.mark.parametrize("gap", [-0.05, 0.0, 0.03])
def test_a_gap_at_equal_training_loss_is_found_whatever_losses_were_reached(gap):
    """The second optimizer trains to a loss 2.5 times lower, which a raw mean would reward."""
    losses, errors = matched(gap, shift=0.4)
    naive = np.median(errors[0]) - np.median(errors[1])
    found = error_at_matched_loss(KEY, losses, errors, num_resamples=100, num_bins=16)
    assert found.overall.estimate == pytest.approx(gap, abs=0.006)
    assert found.overall.low <= found.overall.estimate <= found.overall.high
    assert abs(naive - gap) > 0.05


def test_the_first_optimizer_better_is_a_negative_difference():
    losses, errors = matched(-0.05)
    found = error_at_matched_loss(KEY, losses, errors, num_resamples=50)
    assert found.overall.high < 0
    assert found.counts.sum() <= 2 * 60 * 5


def test_bins_that_one_of_the_two_hardly_fills_do_not_count():
    losses, errors = matched(0.0)
    thinned = np.where(losses[0] < 0.3, np.nan, losses[0])
    thinned[0, 0] = 0.06
    found = error_at_matched_loss(KEY, (thinned, losses[1]), errors, num_resamples=20)
    assert np.isnan(found.difference[0])
    assert found.counts[0, 0] == 1


@pytest.mark.parametrize(
    ("losses", "errors", "complaint"),
    [
        ((np.ones((2, 3)), np.ones((2, 3))), (np.ones((2, 3)), np.ones((2, 3))), "overlap"),
        ((np.ones((2, 3)), np.ones((2, 4))), (np.ones((2, 3)), np.ones((2, 4))), "the same seeds"),
        ((np.ones((2, 3)), np.ones((2, 3))), (np.ones((2, 2)), np.ones((2, 3))), "cells, seeds"),
        (
            (np.full((2, 3), np.nan), np.ones((2, 3))),
            (np.ones((2, 3)), np.ones((2, 3))),
            "finite training losses",
        ),
    ],
)
def test_runs_that_cannot_be_matched_are_refused_in_one_line(losses, errors, complaint):
    with pytest.raises(ValueError, match=complaint):
        error_at_matched_loss(KEY, losses, errors)


def test_a_sweep_in_which_everything_diverged_has_no_curve():
    with pytest.raises(ValueError, match="a finite median, got none"):
        anytime(KEY, np.full((2, 3, 4), np.nan))
