"""The price of carrying a decay, on surfaces whose price is known, and against a literal loop."""

import jax
import numpy as np
import pytest

from bayesfilt.compare.carried_decay import (
    SHRINK_POWERS,
    Surface,
    carried_costs,
    carried_gap,
    carried_regret,
)
from bayesfilt.compare.grid import percentiles, resampled_seeds

KEY = jax.random.key(0)
# Both axes in steps of a factor 2: a decay that is carried lands on the grid.
RATES, DECAYS = 1e-3 * 2.0 ** np.arange(5), 1e-3 * 2.0 ** np.arange(17)
X, Y = np.log(RATES / RATES[2]), np.log(DECAYS / DECAYS[8])
ONCE = np.ones((1, 4), int)


def surface(power, *, curvature=0.02, noise=0.0, seeds=4, carried=None, key=0):
    """A valley whose best shrink goes as `power` of the rate, its floor falling and rising."""
    height = 0.5 * curvature * (Y - (power - 1) * X[:, None]) ** 2 + 0.02 * X[:, None] ** 2
    shake = noise * np.random.default_rng(key).standard_normal((*height.shape, seeds))
    errors = 0.1 * np.exp(height[..., None] + shake)
    return Surface(errors, RATES, DECAYS, power if carried is None else carried)


def worse_at(made, factors):
    """Errors that are larger by a factor a rate."""
    return made._replace(errors=made.errors * np.array(factors)[:, None, None])


def regret(made, **settings):
    return carried_regret(KEY, made, num_resamples=50, **settings).regret


@pytest.mark.equation("GRID-7")
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_a_decay_costs_nothing_where_it_is_carried_as_the_valley_runs(power):
    np.testing.assert_allclose(regret(surface(power)), 0.0, atol=1e-12)
    # Elsewhere it is off by (p - p') log of the ratio of rates, on a parabola.
    for carried in {0.0, 1.0, 2.0} - {power}:
        off = (carried - power) * (X - X[:, None])
        costs = carried_costs(surface(power, carried=carried), ONCE)[0]
        expected = np.where(np.eye(5, dtype=bool), np.nan, 0.5 * 0.02 * off**2)
        for seed in range(4):
            np.testing.assert_allclose(costs[seed], expected, atol=1e-12)
        found = carried_regret(KEY, surface(power, carried=carried), num_resamples=50)
        np.testing.assert_allclose(found.regret, np.nanmean(expected), rtol=1e-9)
        assert found.num_pairs == 20


def literal(made, within):
    """The same, a seed and a pair at a time, with decays looked up by hand."""
    costs = {}
    num_rates, num_decays, num_seeds = made.errors.shape
    logs = np.log(made.errors)
    for left_out in range(num_seeds):
        others = [seed for seed in range(num_seeds) if seed != left_out]
        mean = [
            [np.mean([logs[i, j, seed] for seed in others]) for j in range(num_decays)]
            for i in range(num_rates)
        ]
        best = [row.index(min(row)) for row in mean]
        good = [i for i in range(num_rates) if min(mean[i]) <= np.log(within) + np.min(mean)]
        for start in good:
            for end in good:
                ratio = made.rates[end] / made.rates[start]
                wanted = made.decays[best[start]] * ratio ** (made.power - 1)
                if start == end or not made.decays[0] <= wanted <= made.decays[-1]:
                    continue
                j = max(k for k in range(num_decays - 1) if made.decays[k] <= wanted)
                part = np.log(wanted / made.decays[j]) / np.log(made.decays[j + 1] / made.decays[j])
                line = logs[end, :, left_out]
                there = (1 - part) * line[j] + part * line[j + 1]
                costs[left_out, start, end] = there - line[best[end]]
    return costs


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_costs_are_those_of_a_literal_loop(power):
    rates, decays = np.geomspace(1e-3, 0.1, 6), np.geomspace(1e-3, 9.7, 7)
    made = Surface(np.random.default_rng(1).uniform(0.2, 0.6, (6, 7, 4)), rates, decays, power)
    costs = carried_costs(made, ONCE, within=1.3)[0]
    expected = literal(made, 1.3)
    assert len(expected) >= 12
    for place, cost in np.ndenumerate(costs):
        assert cost == pytest.approx(expected.pop(place, np.nan), abs=1e-12, nan_ok=True)
    assert not expected
    found = carried_regret(KEY, made, within=1.3, num_resamples=5)
    assert found.regret.estimate == pytest.approx(np.nanmean(costs))
    assert found.num_pairs == np.isfinite(costs).sum() / 4


def test_a_seed_that_is_drawn_twice_counts_twice_and_never_chooses_for_itself():
    made = surface(1.0, noise=0.3, carried=0.0)
    twice = made._replace(errors=made.errors[..., [0, 0, 1, 3]])
    costs = carried_costs(made, np.array([[2, 1, 0, 1]]))[0]
    # As if the copies were of one seed: both are left out when either is scored.
    alone = Surface(made.errors[..., [0, 1, 3]], RATES, DECAYS, 0.0)
    weights = np.array([[2, 1, 1]])
    np.testing.assert_allclose(costs[[0, 1, 3]], carried_costs(alone, weights)[0])
    assert np.isnan(costs[2]).all()
    assert not np.allclose(carried_costs(twice, ONCE)[0][0], costs[0], equal_nan=True)


def test_the_interval_is_of_resamples_in_which_seeds_keep_their_weight():
    made = surface(1.0, noise=0.3, carried=0.0)
    draws = resampled_seeds(KEY, 4, 60)
    means = []
    for draw in draws:
        weights = np.bincount(draw, minlength=4)
        costs = carried_costs(made, weights[None])[0]
        counted = np.isfinite(costs) * weights[:, None, None]
        means.append(np.sum(np.nan_to_num(costs) * counted) / max(counted.sum(), 1))
    found = carried_regret(KEY, made, num_resamples=60).regret
    np.testing.assert_allclose(found[1:], percentiles(np.array(means), 0.9), rtol=1e-9)


def test_noise_on_a_separable_surface_costs_nothing_on_average():
    """The seeds that choose do not score; choosing and scoring on all of them is biased upwards."""
    found, biased = [], []
    for key in range(40):
        made = surface(0.0, noise=0.3, key=key, curvature=0.0)
        found.append(regret(made, within=4.0).estimate)
        mean = np.log(made.errors).mean(axis=-1)
        best = mean.argmin(axis=1)
        biased.append(np.mean(mean[:, best] - mean.min(axis=1, keepdims=True)))
    standard_error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * standard_error
    assert standard_error < 0.05
    assert np.mean(biased) > 0.15


def test_a_gap_is_over_the_pairs_that_both_have():
    narrow = worse_at(surface(0.0, carried=1.0), [9, 1, 1, 1, 9])
    both = carried_gap(KEY, narrow, surface(1.0), num_resamples=50)
    near = 0.5 * 0.02 * np.log(2) ** 2 * np.mean([1, 1, 1, 1, 4, 4])
    np.testing.assert_allclose(both.gap, near, rtol=1e-9)
    np.testing.assert_allclose(both.regrets, [near, 0.0], rtol=1e-9, atol=1e-12)
    assert both.num_pairs == 6
    turned = carried_gap(KEY, surface(1.0), narrow, num_resamples=50)
    np.testing.assert_allclose(turned.gap.estimate, -near, rtol=1e-9)
    same = carried_gap(KEY, surface(0.5, noise=0.3), surface(0.5, noise=0.3), num_resamples=50)
    np.testing.assert_array_equal(same.gap, 0.0)  # paired: the seeds are the same


def test_a_decay_that_leaves_the_grid_is_left_out():
    # The best decay is the first or the last: carried as a shrink, it stays in for half the pairs.
    for power in (0.0, 2.0):
        falling = np.broadcast_to((DECAYS[0] / DECAYS)[None, :, None], (5, 17, 4))
        for errors in (falling, falling[:, ::-1]):
            assert carried_regret(KEY, Surface(errors, RATES, DECAYS, power)).num_pairs == 10
    far = Surface(np.ones((5, 2, 4)), RATES * np.array([1, 1e3, 1e6, 1e9, 1e12]), DECAYS[:2], 0.0)
    assert np.isnan(carried_regret(KEY, far).regret.estimate)


def test_a_run_that_diverges_costs_as_much_as_the_worst_and_is_not_left_out():
    made = surface(1.0, carried=0.0)
    lost = made.errors.copy()
    lost[:, 10:] = np.nan  # carried as a shrink, some decays arrive there
    worst = np.where(np.isnan(lost), np.nanmax(lost), lost)
    found, expected = (regret(made._replace(errors=each)) for each in (lost, worst))
    np.testing.assert_array_equal(found, expected)
    no_error = made.errors.copy()
    no_error[2, 8] = 0.0
    half = np.where(no_error > 0, no_error, 0.5 * no_error[no_error > 0].min())
    found, expected = (regret(made._replace(errors=each)) for each in (no_error, half))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "made",
    [
        surface(1.0)._replace(errors=np.full((5, 17, 4), np.nan)),
        surface(1.0, seeds=1),
        Surface(surface(1.0).errors[:1], RATES[:1], DECAYS, 1.0),
        surface(1.0)._replace(
            errors=surface(1.0).errors * np.array([1, 1, 9, 9, 9])[:, None, None]
        ),
    ],
    ids=["all lost", "one seed", "one rate", "two rates that count"],
)
def test_without_three_rates_or_other_seeds_there_is_no_price(made):
    found = carried_regret(KEY, made, num_resamples=20)
    assert np.isnan(found.regret).all()
    assert found.num_pairs == 0


def test_the_parametrisations_have_the_powers_of_their_shrink():
    assert SHRINK_POWERS == {"lr_scaled": 1.0, "paper": 0.0}


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: regret(surface(1.0), within=0.5), "within >= 1"),
        (lambda: regret(surface(1.0)._replace(decays=DECAYS[::-1])), "ascending decays"),
        (lambda: regret(surface(1.0)._replace(rates=RATES[:2])), "2 rates, 17 decays"),
        (lambda: carried_gap(KEY, surface(1.0), surface(1.0, seeds=3)), "the same seeds"),
        (
            lambda: carried_gap(KEY, surface(1.0), surface(1.0)._replace(rates=2 * RATES)),
            "the same learning rates",
        ),
    ],
)
def test_surfaces_that_make_no_sense_are_refused_in_one_line(call, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        call()
    assert "\n" not in str(caught.value)
