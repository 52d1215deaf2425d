"""e22 to e25: laws of size and rotation say yes to noise that keeps them, and no to a wrong law."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers.zoo import Setting, named_optimizer
from bayesfilt.records import Record, variable
from bayesfilt.simulate import StepView
from bayesfilt.tasks.named import make_task
from experiments import e22_equilibrium_size as e22
from experiments import e23_norm_under_schedule as e23
from experiments import e24_rotation as e24
from experiments import e25_full_batch as e25
from experiments import noise_with_a_mean
from experiments.layer_sizes import layer_names, layer_probe, live_weights, power_law
from experiments.noise_worlds import WholeData, noise_world
from experiments.size_laws import AGREEING, NOISY, size_goes_as

SEEDS = 5


def spread(level, seed=0):
    """Five seeds around a level, a thousandth apart."""
    noise = np.random.RandomState(seed).standard_normal((*np.shape(level), SEEDS))
    return np.asarray(level)[..., None] * (1 + 1e-3 * noise)


def said(verdicts, words):
    """The verdict whose claim has these words."""
    found = [each for each in verdicts if words in each.claim]
    assert len(found) == 1, [each.claim for each in verdicts]
    return found[0]


# The helpers.


def test_the_probe_measures_what_a_loop_measures():
    task = make_task("digits-layernorm", batch_size=8, subset=40)
    params = task.init_params(jax.random.key(0))
    batch = task.sample_batch(jax.random.key(1), 0)
    loss, gradient = jax.jit(jax.value_and_grad(task.loss))(params, batch)
    updates = jax.tree.map(lambda w, g: -0.1 * w - 0.3 * g, params, gradient)
    view = StepView(
        step=jnp.asarray(0), params=params, loss=loss, gradient=gradient, updates=updates,
        opt_state=(),
    )  # fmt: skip
    found = jax.jit(layer_probe(task))(task, view)
    reached = np.any(np.asarray(task.train.inputs).reshape(40, -1) != 0, axis=0)
    assert 0 < reached.sum() < 64  # some pixels are always 0

    def vector(tree):
        layer = tree["dense_0"]
        return np.concatenate([np.asarray(layer.weight)[:, reached].ravel(), layer.bias])

    w, g, u = vector(params), vector(gradient), vector(updates)
    after = w + u
    cosine = w @ after / np.linalg.norm(w) / np.linalg.norm(after)
    assert layer_names(task)[0] == "dense_0"
    expected = {
        "rms": np.sqrt(np.mean(w**2)),
        "gradient": np.linalg.norm(g),
        "update": np.sqrt(np.mean(u**2)),
        "angle": np.arccos(cosine),
        "largest": np.abs(w).max(),
        "mean": w.mean(),
        "length": np.linalg.norm(w),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name][0], value, rtol=2e-3, err_msg=name)
    assert abs(found["radial"][0]) < 1e-3  # in front of the norm
    assert abs(found["radial"][1]) > 1e-2  # behind it


def test_the_size_of_a_layer_before_a_norm_is_not_seen_and_that_behind_it_is():
    config = dataclasses.replace(e24.QUICK, subset=50)
    task = e24._network(config)
    params, loss = task.init_params(jax.random.key(0)), jax.jit(task.loss)
    for layer, unseen in (("dense_0", True), ("dense_1", True), ("dense_2", False)):
        doubled = params | {layer: jax.tree.map(lambda leaf: 2 * leaf, params[layer])}
        gap = abs(loss(doubled, task.train) - loss(params, task.train))
        assert (gap < 1e-3) == unseen, layer


def test_a_world_of_noise_has_the_gradients_it_says():
    world = noise_world(noise=(0.1, 3.0), signal=(0.0, 2.0), width=4_000)
    params = world.init_params(jax.random.key(0))
    batch = world.sample_batch(jax.random.key(1), 0)
    gradient = jax.grad(world.loss)(params, batch)
    for name, noise, mean in (("layer_0", 0.1, 0.0), ("layer_1", 3.0, 6.0)):
        np.testing.assert_allclose(gradient[name].std(), noise, rtol=0.05)
        np.testing.assert_allclose(gradient[name].mean(), mean, atol=0.1 * noise)
    turning = noise_world(noise=(1.0, 1.0), width=50, only_direction=True)
    params = turning.init_params(jax.random.key(0))
    batch = turning.sample_batch(jax.random.key(1), 0)
    gradient = jax.grad(turning.loss)(params, batch)["layer_0"]
    weights = params["layer_0"]
    unit = weights / jnp.linalg.norm(weights)
    across = batch["layer_0"] - (batch["layer_0"] @ unit) * unit
    np.testing.assert_allclose(gradient, across / jnp.linalg.norm(weights), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="1 to 10 layers"):
        noise_world(noise=(1.0,) * 11, width=2)


def test_whole_data_are_the_same_at_every_step_and_reach_the_same_weights():
    task = make_task("digits-mlp", batch_size=8, subset=40)
    whole = WholeData(task)
    assert whole.batch_size == 40
    params = whole.init_params(jax.random.key(0))
    batch = whole.sample_batch(jax.random.key(5), 7)
    np.testing.assert_allclose(whole.loss(params, batch), task.training_loss(params), rtol=1e-6)
    assert (live_weights(whole) == live_weights(task)).all()


def test_a_power_law_comes_back_and_a_hole_in_it_is_not_known():
    a, b = np.array([1.0, 2.0, 1.0, 4.0]), np.array([1.0, 1.0, 3.0, 2.0])
    found = power_law(5 * a**0.5 / b, {"a": a, "b": b})
    np.testing.assert_allclose([found["a"], found["b"]], [0.5, -1.0], atol=1e-12)
    assert np.isnan(power_law(np.array([1.0, np.nan, 1.0, 1.0]), {"a": a})["a"])


# e22: sizes.


def sizes(rms_of, world="digits-layernorm"):
    """A record of e22 whose sizes are `rms_of(lr, wd, b1)`; of noise the AR(2) ones."""
    cells = [(lr, wd, 0.9, 0.999) for lr in (2.5e-3, 1e-2) for wd in (0.5, 2.0)]
    cells += [(1e-2, 0.5, 0.0, 0.999), (0.05, 1.0, 0.9, 0.999)]
    lr, wd, b1, b2 = np.array(cells).T

    def group(rms, layers, chosen):
        kinds = np.array(["grid"] * 4 + ["memory", "felt"])[chosen]
        columns = {"learning_rate": lr, "weight_decay": wd, "b1": b1, "b2": b2}
        return {
            **{name: variable("cell", values[chosen]) for name, values in columns.items()},
            "kind": variable("cell", kinds),
            "middle": variable("cell", ((lr == 1e-2) & (wd == 0.5)).astype(float)[chosen]),
            "layer": variable("layer", layers),
            "rms": variable(("cell", "layer", "seed"), spread(rms[chosen])[:, None]),
        }

    a = 1 - lr * wd
    exact = lr * np.sqrt((1 - b1) / (1 + b1) * (1 + a * b1) / ((1 - a**2) * (1 - a * b1)))
    return Record(
        groups={
            e22.NOISE: group(exact, ["layer_0"], slice(None)),
            world: group(rms_of(lr, wd, b1), ["dense_0"], slice(0, 5)),
        },
        attributes={},
    )


def test_sizes_of_noise_and_of_a_network_that_keeps_the_law_are_yes():
    verdicts = e22.check(sizes(lambda lr, wd, b1: np.sqrt(lr / (2 * wd))))
    rival = said(verdicts, "as gradients that agree would have it")
    assert rival.holds is False
    assert all(each.holds is True for each in verdicts if each is not rival)


def test_gradients_that_agree_are_told_from_noise_even_where_the_level_is_the_same():
    verdicts = e22.check(sizes(lambda lr, wd, b1: 0.07 / wd))
    assert said(verdicts, "with the root of lr/wd").holds is False
    assert said(verdicts, "gradients that agree").holds is True
    assert said(verdicts, "first layer: weights settle").holds is False


def test_a_size_that_depends_on_the_momentum_is_no():
    verdicts = e22.check(sizes(lambda lr, wd, b1: np.sqrt(lr / (2 * wd)) * (1.3 - 0.3 * b1 / 0.9)))
    assert said(verdicts, "first layer: the size does not depend").holds is False


@pytest.mark.parametrize("factor", [2**0.5, 0.5])
def test_a_wrong_prior_is_refuted_by_noise(monkeypatch, factor):
    prior = e22._prior
    monkeypatch.setattr(e22, "_prior", lambda group: factor * prior(group))
    verdicts = e22.check(sizes(lambda lr, wd, b1: np.sqrt(lr / (2 * wd))))
    assert said(verdicts, "at least 200 steps").holds is False
    assert said(verdicts, "first layer: weights settle").holds is False


def test_a_wrong_size_with_momentum_is_refuted_by_noise(monkeypatch):
    monkeypatch.setattr(e22, "equilibrium_rms_with_momentum", lambda lr, s, b1: lr / np.sqrt(2 * s))
    verdicts = e22.check(sizes(lambda lr, wd, b1: np.sqrt(lr / (2 * wd))))
    assert said(verdicts, "AR(2)").holds is False


# e23: under a schedule.


@pytest.fixture(scope="module")
def annealed_noise():
    """Noise alone, through the real optimizer, in memories of 25 steps and of 2,500."""
    config = dataclasses.replace(
        e23.PAPER, learning_rate=0.04, hold=300, anneal=1_500, noise_weights=1_024, record_every=20,
        num_seeds=SEEDS,
    )  # fmt: skip
    world = noise_world(width=config.noise_weights)
    return e23._courses(config, world, tuple(range(SEEDS)))


def test_noise_keeps_its_size_under_decay_as_the_square_alone(annealed_noise):
    for power in e23.DECAYS:
        assert e23._exponent("noise", annealed_noise, 0, power).holds is True
    assert e23._recursion(annealed_noise).holds is True
    assert e23._too_slow(annealed_noise).holds is True


def test_wrong_laws_of_the_schedule_are_refuted(annealed_noise, monkeypatch):
    monkeypatch.setattr(e23, "law_of", lambda power: 1 - power)
    assert e23._exponent("noise", annealed_noise, 0, 1).holds is False
    assert e23._exponent("noise", annealed_noise, 0, 2).holds is False


def test_a_recursion_with_twice_the_noise_is_refuted(annealed_noise):
    wrong = dict(annealed_noise)
    known = annealed_noise["recursion"]
    wrong["recursion"] = variable(known.dims, known.values * 2**0.5)
    assert e23._recursion(wrong).holds is False


def test_a_slow_decay_that_follows_the_schedule_is_no(annealed_noise):
    swapped = annealed_noise | {"slow": variable("cell", 1 - annealed_noise["slow"].values)}
    assert e23._too_slow(swapped).holds is False


def test_the_recursion_is_the_variance_of_many_weights():
    config = dataclasses.replace(e23.PAPER, hold=20, anneal=60, learning_rate=0.05)
    random = np.random.RandomState(0)
    w, m = 0.1 * random.standard_normal(40_000), np.zeros(40_000)
    seen = []
    for step in range(config.num_steps):
        seen.append(np.sqrt(np.mean(w**2)))
        s = float(e23.annealed(config, step))
        m = 0.9 * m + 0.1 * random.standard_normal(40_000)
        w = (1 - 0.05 * 2.0 * s) * w - 0.05 * s * m / (1 - 0.9 ** (step + 1))
    np.testing.assert_allclose(e23.recursion(config, 1, 2.0, 0.1), seen, rtol=0.02)


@pytest.mark.parametrize(("power", "name"), [(1, "adamw"), (2, "adamc"), (2, "adamw_filter")])
def test_the_scheduled_optimizers_are_those_of_the_zoo(power, name):
    steps = 8
    config = dataclasses.replace(e23.PAPER, hold=0, anneal=steps, decay=3.0)
    setting = Setting(
        learning_rate=config.learning_rate, weight_decay=3.0, batch_size=1, num_steps=steps,
        schedule="cosine:end=0.1",
    )  # fmt: skip
    rivals = (
        e23.scheduled_adamw(config, {"power": float(power), "decay": 3.0}),
        named_optimizer(name, setting).optimizer,
    )
    start, ends = jnp.array([0.5, -2.0]), []
    for optimizer in rivals:
        weights, state = start, optimizer.init(start)
        for step in range(steps):
            gradient = jnp.array([0.3, -0.1]) * (step - 2.5)
            updates, state = optimizer.update(gradient, state, weights)
            weights = optax.apply_updates(weights, updates)
        ends.append(weights)
    np.testing.assert_allclose(*ends, rtol=2e-5)
    assert abs(float(ends[0][1] - start[1])) > 0.05


def gradients(grown):
    """A group of e23 whose gradients grow by these factors, by power."""
    step = np.arange(0, 100, 5)
    factor = np.where(step < 40, 1.0, np.where(step < 60, 0.5, 0.1))
    course = np.where(step < 40, 1.0, np.array(grown)[:, None])
    return {
        "power": variable("cell", np.arange(3.0)),
        "slow": variable("cell", np.zeros(3)),
        "step": variable("step", step),
        "factor": variable("step", factor),
        "gradient": variable(("cell", "step", "layer", "seed"), spread(course)[:, :, None]),
    }


def test_a_late_rise_is_seen_and_its_absence_too():
    rise = gradients((1.0, 3.0, 1.0))
    assert [part(rise).holds for part in (e23._rises, e23._does_not_rise, e23._removed)] == [
        True, True, True,
    ]  # fmt: skip
    other = gradients((1.0, 1.0, 3.0))
    assert [part(other).holds for part in (e23._rises, e23._does_not_rise, e23._removed)] == [
        False, False, False,
    ]  # fmt: skip


# e24: rotation.


@pytest.fixture(scope="module")
def turning():
    """Noise across the weights, through the real optimizers."""
    config = dataclasses.replace(
        e24.PAPER,
        shrinks=(1e-2,),
        sgd_shrinks=(1e-2,),
        noise_weights=256,
        num_steps=1_000,
        begin=600,
        num_seeds=SEEDS,
    )
    world = noise_world(noise=config.noise, width=config.noise_weights, only_direction=True)
    group = e24._turning(config, world, 3, config.noise_l2, tuple(range(SEEDS)))
    return group | {"noise": variable("layer", np.array(config.noise))}


def parts_of(group):
    """Verdicts on a world of noise, by what they are about."""
    return {
        "balance": e24._balance(e24.NOISE, group),
        "sgd": e24._angle(e24.NOISE, group, "sgdw", 0.0),
        "adamw": e24._angle(e24.NOISE, group, "adamw", 0.0),
        "momentum": e24._angle(e24.NOISE, group, "adamw", 0.9),
        "alike": e24._alike(e24.NOISE, group, "adamw"),
        "apart": e24._alike(e24.NOISE, group, "adam_l2"),
        "more alike": e24._more_alike(e24.NOISE, group),
        "power": e24._power(group),
    }


def test_noise_across_the_weights_turns_as_predicted(turning):
    found = parts_of(turning)
    assert {name: each.holds for name, each in found.items()} == dict.fromkeys(found, True)


def test_wrong_laws_of_rotation_are_refuted(turning, monkeypatch):
    known = turning["predicted_angle"].values
    momentum = np.sqrt((1 - 0.9) / (1 + 0.9))
    wrong = turning | {
        # sqrt(lr wd), and momentum's factor left out
        "predicted_angle": variable("setting", np.where(known < 0.1, known / momentum, known / 1.4))
    }
    found = parts_of(wrong)
    assert [found[name].holds for name in ("sgd", "adamw", "momentum")] == [False] * 3
    ratio = e24._predicted_ratio
    monkeypatch.setattr(e24, "_predicted_ratio", lambda group: ratio(group) / 2**0.5)
    assert e24._balance(e24.NOISE, turning).holds is False
    monkeypatch.setattr(e24, "POWER", -1.0)
    assert e24._power(turning).holds is False


def test_a_network_without_gradients_is_not_judged(turning):
    dead = turning | {
        "pushed": variable(("setting", "layer", "seed"), turning["pushed"].values / 2)
    }
    found = parts_of(dead)
    assert [found[name].holds for name in ("balance", "sgd", "adamw")] == [None] * 3


def test_paces_are_told_apart_both_ways(turning):
    angle = turning["angle"].values
    apart = angle * np.array([1.0, 1.2, 1.5])[None, :, None]
    alike = np.repeat(angle[:, :1], 3, axis=1)
    is_l2 = (turning["kind"].values == e24.KINDS.index("adam_l2"))[:, None, None]
    swapped = np.where(is_l2, alike, apart)
    place = ("setting", "layer", "seed")
    l2_is_nearer = turning | {"angle": variable(place, swapped)}
    assert e24._more_alike(e24.NOISE, l2_is_nearer).holds is False
    assert (
        e24._alike(e24.NOISE, turning | {"angle": variable(place, apart)}, "adamw").holds is False
    )
    assert (
        e24._alike(e24.NOISE, turning | {"angle": variable(place, alike)}, "adam_l2").holds is False
    )


def test_the_switched_optimizer_is_each_of_optax():
    rivals = {
        "sgdw": optax.chain(optax.add_decayed_weights(0.2), optax.sgd(0.1)),
        "adamw": optax.adamw(0.1, b1=0.5, weight_decay=0.2),
        "adam_l2": optax.chain(optax.add_decayed_weights(0.3), optax.adam(0.1, b1=0.5)),
    }
    for place, (kind, rival) in enumerate(rivals.items()):
        numbers = e24.Switches(
            kind=float(place), learning_rate=0.1, weight_decay=0.0 if kind == "adam_l2" else 0.2,
            l2=0.3 if kind == "adam_l2" else 0.0, b1=0.5,
        )._asdict()  # fmt: skip
        ends = []
        for optimizer in (e24.switched(numbers), rival):
            weights = jnp.array([0.5, -2.0])
            state = optimizer.init(weights)
            for step in range(4):
                gradient = jnp.array([0.3, -0.1]) * (step - 1.5)
                updates, state = optimizer.update(gradient, state, weights)
                weights = optax.apply_updates(weights, updates)
            ends.append(weights)
        np.testing.assert_allclose(*ends, rtol=1e-5, err_msg=kind)


# e25: gradients that agree.


@pytest.fixture(scope="module")
def agreeing():
    """Noise with a mean, through the real AdamW."""
    config = dataclasses.replace(
        e25.PAPER, noise_rates=(0.01, 0.04), noise_decays=(1.0,), noise_steps=1_000,
        noise_weights=256, snr=(1e-2, 3e-2, 0.1, 0.3, 1.0),
    )  # fmt: skip
    return e25._noise(config, tuple(range(SEEDS)))


def test_noise_with_a_mean_crosses_where_predicted(agreeing):
    assert noise_with_a_mean.both_limits(agreeing).holds is True
    assert noise_with_a_mean.crossing_verdict(agreeing).holds is True


def test_a_wrong_boundary_is_refuted(agreeing, monkeypatch):
    monkeypatch.setattr(noise_with_a_mean, "expected_crossing", lambda lr, wd: np.sqrt(lr * wd))
    assert noise_with_a_mean.crossing_verdict(agreeing).holds is False
    monkeypatch.setattr(noise_with_a_mean, "expected_crossing", lambda lr, wd: lr * wd / 2)
    assert noise_with_a_mean.crossing_verdict(agreeing).holds is False
    size = noise_with_a_mean.expected_size
    monkeypatch.setattr(
        noise_with_a_mean, "expected_size", lambda snr, lr, wd: 2 * size(snr, lr, wd)
    )
    assert noise_with_a_mean.both_limits(agreeing).holds is False


def test_a_crossing_is_found_between_ratios_and_not_outside():
    snr = np.array([0.01, 0.1, 1.0])
    np.testing.assert_allclose(noise_with_a_mean.crossing(snr, snr / 0.05), 0.05, rtol=1e-6)
    assert np.isnan(noise_with_a_mean.crossing(snr, snr / 5))
    assert np.isnan(noise_with_a_mean.crossing(snr, snr / 0.001))


@pytest.mark.parametrize(
    ("size", "level", "agrees", "noisy"),
    [
        (lambda lr, wd: 1 / wd, True, True, False),
        (lambda lr, wd: np.sqrt(lr / (2 * wd)), False, False, True),
        (lambda lr, wd: 0.5 / wd, False, True, False),
    ],
)
def test_levels_and_exponents_tell_the_two_limits_apart(size, level, agrees, noisy):
    lr, wd = (axis.ravel() for axis in np.meshgrid([5e-3, 2e-2], [0.5, 1.0, 2.0]))
    values = variable(("cell", "seed"), spread(size(lr, wd)))
    group = {
        "learning_rate": variable("cell", lr),
        "weight_decay": variable("cell", wd),
        "largest": values,
        "largest_halfway": values,
    }
    assert e25._level("", group).holds is level
    assert size_goes_as("agrees", group, values.values, AGREEING).holds is agrees
    assert size_goes_as("noisy", group, values.values, NOISY).holds is noisy
    assert e25._bound("", group).holds is True
    above = group | {"largest": variable(("cell", "seed"), values.values + 3.0)}
    assert e25._bound("", above).holds is False


def test_gradients_that_push_outwards_at_the_border_alone_are_told_from_others():
    limit, border = 0.25, np.array([1.0, -1.0, 1.0])
    view = StepView(
        step=jnp.asarray(0), params=jnp.asarray(limit * border),
        gradient=jnp.asarray(-border * [3.0, 0.1, 0.0]), loss=jnp.asarray(0.0),
        updates=jnp.zeros(3), opt_state=(),
    )  # fmt: skip
    np.testing.assert_allclose(e25.pull(None, view), limit, rtol=1e-6)
    inside = view._replace(params=jnp.asarray(limit * border * [0.5, 1.0, 1.0]))
    assert e25.pull(None, inside) < 0.6 * limit
    decay = np.array([2.0, 4.0])
    for size, holds in ((1.0, True), (0.8, False)):
        group = {
            "weight_decay": variable("cell", decay),
            "pull": variable(("cell", "seed"), spread(size / decay)),
        }
        assert e25._pull("", group).holds is holds


def test_rate_and_decay_fall_together_where_they_fall():
    weights, gradient = jnp.array([1.0]), jnp.array([0.0])
    shrinks = []
    for falls, step in ((0.0, 50), (1.0, 0), (1.0, 50)):
        numbers = {"learning_rate": 0.1, "weight_decay": 2.0, "b2": 0.99, "falls": falls}
        optimizer = e25._adamw(numbers, 100)
        state = optimizer.init(weights)
        for _ in range(step + 1):
            updates, state = optimizer.update(gradient, state, weights)
        shrinks.append(float(updates[0]))
    np.testing.assert_allclose(shrinks, [-0.2, -0.2, -0.05], rtol=1e-5)
