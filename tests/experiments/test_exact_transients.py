"""Verdicts on transients, memories and restarts can be yes and no, and turn with the theory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from bayesfilt.optimizers import adabayes_fixed_point
from bayesfilt.records import Record, variable
from bayesfilt.theory import (
    time_constant,
    transient_from_zero,
    transient_variance,
)
from experiments import (
    e13_transients,
    e14_adaptive_memory,
    e38_restart_pulse,
    fed_transients,
    relaxations,
)
from experiments.scheduled_filters import VARIANTS

_VERDICTS = {}  # of a result, which must not change once it is judged


def holds(module, result, words):
    """What holds of the one verdict whose claim has these words."""
    if id(result) not in _VERDICTS:
        _VERDICTS[id(result)] = result, module.check(result)
    (found,) = [each for each in _VERDICTS[id(result)][1] if words in each.claim]
    return found.holds


def noisy(values, spread=0.01, seeds=6):
    """Numbers with seeds last, a little apart from each other."""
    draws = np.random.default_rng(0).normal(size=(*np.shape(values), seeds))
    return np.asarray(values)[..., None] * np.exp(spread * draws)


def record_of(config, **groups):
    return Record(groups=groups, attributes={"config": dataclasses.asdict(config)})


# e13


def transient_result(time=1.0, factor=1.0, lag=1.0, loss=0.0, seeds=6):
    """Transients `time` times as long and lags of another size; log losses `loss` apart."""
    config = dataclasses.replace(e13_transients.PAPER, fed_seeds=seeds, seeds=seeds)
    precision, eta = jnp.geomspace(1.0, 1e4, 3), config.drift_scale
    step = jnp.arange(1, 3_001.0)[:, None]
    law = np.stack(
        [
            transient_from_zero(step, precision, eta),
            transient_variance(1.0, step, precision, eta, 1.0),
        ]
    )
    late = np.stack(
        [
            transient_from_zero(step / time, precision, eta),
            transient_variance(1.0, step / time, precision, eta, 1.0),
        ]
    )
    memories = np.array([30.0, 100.0, 1000.0])
    last = np.stack([memories**0.5, memories ** (4 / 3)]) * factor
    names = list(VARIANTS)
    scales = np.geomspace(1e-3, 3e-2, 5)
    base = np.tile(1 + np.log(scales / 5e-3) ** 2, (len(names), 1))
    base[[name.startswith("adabayes") for name in names]] *= np.exp(loss)
    starts = {
        "precision": variable("precision", np.asarray(precision)),
        "learning_rate": variable(
            ("start", "step", "precision", "seed"),
            late[..., None] * noisy(np.ones(()), seeds=seeds),
        ),
        "law": variable(("start", "step", "precision"), law),
    }
    annealed = {
        "memories": variable("precision", memories),
        "last_factor": variable(("schedule", "precision", "seed"), noisy(last, seeds=seeds)),
        "memories_behind": variable(
            ("schedule", "precision", "seed"), noisy(np.full_like(last, lag), seeds=seeds)
        ),
    }
    cells = ("optimizer", "drift_scale", "seed")
    networks = {
        "optimizer": variable("optimizer", names),
        "drift_scale": variable("drift_scale", scales),
        "training_loss": variable(cells, noisy(base, seeds=seeds)),
        "test_loss": variable(cells, noisy(base, seeds=seeds)),
        "last_variance": variable(cells, noisy(base, seeds=seeds)),
    }
    return record_of(config, starts=starts, annealed=annealed, networks=networks)


START = ("cold start: half", "cold start: the learning rate follows", "warm start: twice")


def test_transients_of_the_right_length_are_told_from_others():
    good, late = transient_result(), transient_result(time=2.0)  # 1/(2 eta sqrt h)
    few = transient_result(seeds=3)
    for words in START:
        assert holds(e13_transients, good, words) is True
        assert holds(e13_transients, late, words) is False
        assert holds(e13_transients, few, words) is None


def test_the_time_of_a_transient_goes_as_the_root():
    words = "cold start: the time to half"
    assert holds(e13_transients, transient_result(), words) is True
    result = transient_result()
    rates = result.groups["starts"]["learning_rate"].values
    rates[...] = rates[:, :, [1]]  # every weight in the same time
    assert holds(e13_transients, result, words) is False


def test_the_lag_must_be_there_and_grow_as_the_scaling_has_it():
    good, none, wide = transient_result(), transient_result(factor=0.01), transient_result(lag=10.0)
    for schedule in ("line", "cosine"):
        larger, confined = f"{schedule}: AdaBayes takes larger", f"{schedule}: the lag is confined"
        assert holds(e13_transients, good, larger) is True
        assert holds(e13_transients, none, f"line: {larger.partition(': ')[2]}") is False
        assert holds(e13_transients, good, f"{schedule}: that factor") is True
        assert holds(e13_transients, good, confined) is True
        assert holds(e13_transients, wide, confined) is False
    result = transient_result()
    values = result.groups["annealed"]["last_factor"].values
    values[...] = values[::-1].copy()  # the power of the other schedule
    assert holds(e13_transients, result, "line: that factor") is False


def test_a_loss_that_differs_because_of_the_lag_is_seen():
    words, own = "digits-mlp, cosine: AdaBayes has the test loss", "with its own warm-up is as"
    good, worse = transient_result(), transient_result(loss=0.2)
    for claim in (words, own):
        assert holds(e13_transients, good, claim) is True
        assert holds(e13_transients, worse, claim) is False
    owed = "lag makes no difference to the test"
    assert holds(e13_transients, good, owed) is True
    assert holds(e13_transients, worse, owed) is True  # as much worse at a constant rate
    late = transient_result()
    names = late.groups["networks"]["optimizer"].values.tolist()
    late.groups["networks"]["test_loss"].values[names.index("adabayes, cosine")] *= 1.2
    assert holds(e13_transients, late, owed) is False


def test_a_best_drift_scale_at_the_edge_of_its_grid_is_not_judged():
    result = transient_result()
    result.groups["networks"]["test_loss"].values[...] *= np.linspace(9, 1, 5)[:, None] ** 3
    assert holds(e13_transients, result, "digits-mlp, cosine: AdaBayes has the test") is None


def test_times_are_read_off_a_course():
    step = np.arange(1, 2_001)
    cold, warm = np.tanh(step / 300), 1 / np.tanh(step / 300)
    half = fed_transients.half_times(cold[:, None], fed_transients.COLD)
    twice = fed_transients.half_times(warm[:, None], fed_transients.WARM)
    np.testing.assert_allclose([half[0], twice[0]], 300 * np.arctanh(0.5), rtol=1e-3)
    assert fed_transients.steps_behind(np.array([2.0, 1.0, 1.6, 1.7])) == 2
    assert np.isnan(fed_transients.time_to(np.ones(5), 2.0))


# e14


def memory_result(power=0.5, factor=1.0, noise_power=0.25, ratio=2.0, seeds=6):
    """AdaBayes' rate of forgetting to a power of h, and weights of a network of some noise."""
    config = dataclasses.replace(e14_adaptive_memory.PAPER, fed_seeds=seeds, seeds=seeds)
    precision = np.geomspace(*config.precisions)
    middle = np.exp(np.log(precision).mean())
    due = 1 / np.asarray(time_constant(jnp.asarray(precision), config.drift_scale))
    own = factor * due * (precision / middle) ** (power - 0.5)
    fixed = np.full_like(own, 1 - config.b2)
    level = np.sqrt(due / 4) * (precision / middle) ** (noise_power - 0.25)
    cells = ("optimizer", "precision", "seed")
    fed = {
        "precision": variable("precision", precision),
        "rate": variable(cells, noisy(np.stack([own, fixed]), seeds=seeds)),
        "noise": variable(cells, noisy(np.stack([level, np.sqrt(fixed / 4)]), seeds=seeds)),
    }
    places = np.tile(np.geomspace(0.01, 100, 40), (seeds, 1))
    network = {
        "memory_ratio": variable(("seed", "weight"), places),
        "noise_ratio": variable(("seed", "weight"), np.where(places > 1, ratio, 1 / ratio)),
    }
    return record_of(config, fed=fed, network=network, shuffled=network)


def test_the_memory_of_the_filter_is_told_from_others():
    share, root = "AdaBayes forgets a loud gradient", "AdaBayes' forgetting goes as"
    good = memory_result()
    assert holds(e14_adaptive_memory, good, share) is True
    assert holds(e14_adaptive_memory, good, root) is True
    assert holds(e14_adaptive_memory, memory_result(factor=0.5), share) is False
    for power in (0.0, 1.0):
        assert holds(e14_adaptive_memory, memory_result(power=power), root) is False


def test_the_noise_of_the_filter_is_told_from_others():
    words = "the noise of AdaBayes' variance goes"
    assert holds(e14_adaptive_memory, memory_result(), words) is True
    assert holds(e14_adaptive_memory, memory_result(noise_power=0.0), words) is False
    assert holds(e14_adaptive_memory, memory_result(), "equally noisy") is True
    for where in ("loud", "quiet"):
        words = f"the variance of {where} weights"
        assert holds(e14_adaptive_memory, memory_result(), f"mlp: {words}") is True
        assert holds(e14_adaptive_memory, memory_result(ratio=0.5), f"order: {words}") is False


def test_forgetting_and_noise_are_read_off_a_course():
    gap = 0.01 * 0.97 ** np.arange(50.0)
    np.testing.assert_allclose(e14_adaptive_memory.forgetting(gap[:, None], 40), 0.03, rtol=1e-6)
    wave = np.tile([0.1, -0.1], 500) + 0.3 * np.arange(1000)
    np.testing.assert_allclose(e14_adaptive_memory.noise_of(wave[:, None]), 0.1, rtol=1e-3)
    ratio = np.geomspace(0.1, 10, 5)
    equal = np.stack([np.sqrt(ratio / 2), np.ones(5)])
    np.testing.assert_allclose(e14_adaptive_memory.same_noise(ratio, equal), 2.0)


def test_a_memory_that_all_weights_share_is_found_out(monkeypatch):
    config = dataclasses.replace(e14_adaptive_memory.QUICK, fed_seeds=5)
    words = "AdaBayes' forgetting goes as"
    network = memory_result().groups["network"]

    def root_is_seen():
        fed = e14_adaptive_memory._fed(config, jax.random.key(0))
        return holds(
            e14_adaptive_memory,
            record_of(config, fed=fed, network=network, shuffled=network),
            words,
        )

    assert root_is_seen() is True
    monkeypatch.setattr(e14_adaptive_memory, "adabayes", adabayes_fixed_point)
    assert root_is_seen() is False


# e38


def restart_result(time=1.0, power=1.0, jump_at_once=True, network_time=1.0, seeds=6):
    """Relaxations `time` times as long as the theory's."""
    config = dataclasses.replace(e38_restart_pulse.PAPER, fed_seeds=seeds, seeds=seeds)
    precision, eta = np.geomspace(*config.precisions), config.drift_scale
    h = jnp.asarray(precision)
    pace = time * (precision / precision[0]) ** (0.5 - 0.5 * power)
    step = jnp.asarray(np.arange(config.window + 1.0)[:, None] / pace)
    courses = np.stack(
        [
            transient_variance(eta / jump / jnp.sqrt(h), step, h, eta, jnp.inf)
            for jump in config.jumps
        ]
    )
    level = np.broadcast_to(courses[:, -1:], courses.shape).copy()
    level[:, 0] = courses[:, 0]
    rate = np.stack([courses, level if jump_at_once else courses])
    start = 1 / config.jumps[1]
    left = e38_restart_pulse.LEFT
    predicted = np.geomspace(20, 200, config.bins)
    fed = {
        "precision": variable("precision", precision),
        "learning_rate": variable(
            ("optimizer", "jump", "step", "precision", "seed"),
            rate[..., None] * noisy(np.ones(()), seeds=seeds),
        ),
        "law": variable(("step", "precision"), courses[1]),
        "large_time": variable((), 2 * (np.arctanh(1 - left * (1 - start)) - np.arctanh(start))),
    }
    network = {
        "predicted": variable(("bin", "seed"), noisy(predicted, seeds=seeds)),
        "measured": variable(("bin", "seed"), noisy(predicted * network_time, seeds=seeds)),
    }
    return record_of(config, fed=fed, network=network, shuffled=network)


def test_relaxations_of_the_right_length_are_told_from_others():
    good, quick, slow = (restart_result(time=time) for time in (1.0, 0.5, 2.0))
    for words in ("small jump: AdaBayes'", "large jump: AdaBayes' learning rate"):
        assert holds(e38_restart_pulse, good, words) is True
        assert holds(e38_restart_pulse, quick, words) is False
        assert holds(e38_restart_pulse, slow, words) is False
    words = "large jump: the time goes"
    assert holds(e38_restart_pulse, good, words) is True
    assert holds(e38_restart_pulse, restart_result(power=0.0), words) is False


def test_who_jumps_and_who_does_not_is_told():
    at_once = "the fixed point is at its new level"
    assert holds(e38_restart_pulse, restart_result(), at_once) is True
    assert holds(e38_restart_pulse, restart_result(jump_at_once=False), at_once) is False
    slow = "hardly moved after the first step"
    assert holds(e38_restart_pulse, restart_result(), slow) is True
    assert holds(e38_restart_pulse, restart_result(time=0.03), slow) is False


def test_a_network_that_relaxes_at_another_pace_is_found_out():
    words = "in the time of their own gradients"
    assert holds(e38_restart_pulse, restart_result(), words) is True
    for time in (0.5, 2.0):
        assert holds(e38_restart_pulse, restart_result(network_time=time), words) is False
    assert holds(e38_restart_pulse, restart_result(seeds=3), words) is None
    shared = restart_result()
    shared.groups["network"]["measured"].values[...] = 60.0
    assert holds(e38_restart_pulse, shared, "from bin to bin") is False


def test_a_relaxation_time_is_read_off_a_course():
    course = 3 - 2 * np.exp(-np.arange(800) / 40)
    np.testing.assert_allclose(e38_restart_pulse.relaxation_time(course), 40, rtol=1e-3)


def test_bins_of_weights_relax_as_their_gradients_say():
    config = dataclasses.replace(e38_restart_pulse.PAPER, bins=3)
    precision = np.geomspace(1.0, 100.0, 30)
    steps = np.arange(config.network_window + 1.0)[:, None]
    eta = config.network_rate
    course = np.tanh(eta * np.sqrt(precision) * steps) * eta / np.sqrt(precision) + 1e-9
    gradient = np.tile(np.sqrt(precision), (len(steps), 1))
    measured, due, _ = e38_restart_pulse.binned_times(config, course, gradient, np.inf)
    np.testing.assert_allclose(measured, due, rtol=0.1)
    quiet = e38_restart_pulse.binned_times(config, course, gradient * 1e-3, np.inf)
    assert np.isnan(quiet[0]).all()  # nobody can relax within the window


def falling_precision(eta=5e-3, pace=1.0):
    """The filter's variance after a pulse of noise, while its precision falls twentyfold."""
    h = np.geomspace(2.0, 0.1, 2_000)
    variance = [1e-3]
    for each in h:
        grown = variance[-1] + pace * eta**2
        variance.append(grown / (1 + pace * each * grown))
    return np.array(variance), h


def test_a_level_that_moves_does_not_hide_the_time_of_a_weight():
    made, due = relaxations.own_times(*falling_precision(), 5e-3, np.inf)
    np.testing.assert_allclose(made, due, rtol=0.15)  # h falls by a seventh meanwhile
    assert relaxations.relaxation_time(falling_precision()[0]) > 4 * due
    made, due = relaxations.own_times(*falling_precision(pace=0.5), 5e-3, np.inf)
    assert made > 1.5 * due
    made, due = relaxations.own_times(*falling_precision(pace=2.0), 5e-3, np.inf)
    assert made < due / 1.5


def test_a_rate_that_is_at_its_level_already_has_no_time():
    course, h = falling_precision()
    assert np.isnan(relaxations.own_times(course * 1e3, h, 5e-3, np.inf)).all()
