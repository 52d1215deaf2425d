"""e45: steps at right angles turn as Pythagoras says; its verdicts say no to layers that do not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import normalized
from bayesfilt.records import Record, variable
from bayesfilt.theory import rotation_per_step
from experiments import e45_direction_preserving as e45
from experiments.living_cells import living
from experiments.many_runs import ManyRuns
from experiments.turning_adam import KINDS, turning_adam
from tests.experiments.made_digits import holds

SEEDS = 5
TURNS = (
    "with b1 = 0,",
    "noise across the weights: decay beside a step at right angles, with b1 = 0.9",
)
IN_NETWORK = "network: decay beside a step at right angles, with b1 = 0.9"
SETTLES = "network: under decay beside a step at right angles, the size of layers settles"
NOISE_SETTLES = "weights: under decay beside a step at right angles, the size of layers settles"
HELD = "a held norm told to turn"
NEARER = "nearer to its law"
ALIKE = "more alike"


def spread(level):
    """Seeds around a level, a thousandth apart."""
    noise = np.random.default_rng(7).standard_normal((*np.shape(level), SEEDS))
    return np.asarray(level)[..., None] * (1 + 1e-3 * noise)


def world(b1s, angle_of, growth=1.0):
    """A group of e45 whose layers turn by `angle_of(kind, shrink, b1)`, a number a layer."""
    cells = [(kind, s, b1) for kind in range(3) for b1 in b1s for s in (2e-3, 1e-2)]
    kind, shrink, b1 = np.array(cells).T
    angles = np.array([angle_of(KINDS[k], s, b) for k, s, b in cells])
    expected = [e45.predicted_angle(KINDS[k], s, b) for k, s, b in cells]
    place, length = ("setting", "layer", "seed"), np.ones_like(angles)
    return {
        "kind": variable("setting", kind),
        "shrink": variable("setting", shrink),
        "rate": variable("setting", np.full(len(cells), 0.01)),
        "b1": variable("setting", b1),
        "predicted_angle": variable("setting", np.array(expected)),
        "angle": variable(place, spread(angles)),
        "third_length": variable(place, spread(length)),
        "last_length": variable(place, spread(growth * length)),
    }


def as_predicted(kind, shrink, b1, *, factor=1.0, power=0.5, adamw=(1.4, 1.1)):
    """Two layers' angles: right ones, but AdamW's, which are off and apart as e24 found them."""
    noise = float(rotation_per_step(shrink, b1))
    if kind == "adamw":
        return noise * np.array(adamw)
    return noise * np.ones(2) if kind == "held" else factor * (2 * shrink) ** power * np.ones(2)


def search(adamw=0.10, free=0.08, held=0.08):
    """Errors of one cell a kind."""
    errors = spread([adamw, free, held])
    return {
        "even": variable(("cell", "seed"), errors),
        "odd": variable(("cell", "seed"), errors),
        "edge": variable("cell", np.zeros(3, bool)),
        "kind": variable("cell", np.arange(3.0)),
        "rate": variable("cell", np.full(3, 0.01)),
        "decay": variable("cell", np.full(3, 0.2)),
    }


def record(noise=as_predicted, network=as_predicted, growth=1.0, noise_growth=1.0, **errors):
    return Record(
        groups={
            e45.NOISE: world((0.0, 0.9), noise, noise_growth),
            e45.NETWORK: world((0.9,), network, growth),
            "search": search(**errors),
        },
        attributes={},
    )


def test_layers_that_turn_as_pythagoras_says_are_a_yes():
    verdicts = e45.check(record())
    assert len(verdicts) == 12
    assert all(each.holds is True for each in verdicts)


@pytest.mark.parametrize(
    "law",
    [
        {"factor": 2**0.5},  # a wrong factor
        {"factor": 0.5**0.5},
        {"factor": 19**-0.5},  # the momentum's, which is AdamW's
        {"power": 1.0},  # a wrong power
        {"power": 0.25},
    ],
)
def test_other_angles_are_a_no(law):
    def wrong(kind, shrink, b1):
        return as_predicted(kind, shrink, b1, **law)

    assert holds(e45.check(record(network=wrong)), IN_NETWORK) is False
    assert holds(e45.check(record(network=wrong)), NEARER) is False
    for words in TURNS:
        assert holds(e45.check(record(noise=wrong)), words) is False


@pytest.mark.parametrize(
    "law",
    [lambda s, b1: 2 * s, lambda s, b1: np.sqrt(s), lambda s, b1: np.arccos(1 - s) * (1 - b1)],
)
def test_a_wrong_prediction_is_refuted_by_right_angles(monkeypatch, law):
    predicted = e45.predicted_angle
    monkeypatch.setattr(
        e45, "predicted_angle", lambda k, s, b: law(s, b) if k == "free" else predicted(k, s, b)
    )
    assert holds(e45.check(record()), IN_NETWORK) is False


def test_a_held_norm_that_turns_without_the_momentum_s_factor_is_a_no():
    def wrong(kind, shrink, b1):
        return as_predicted("free" if kind == "held" else kind, shrink, b1)

    assert holds(e45.check(record(noise=wrong)), HELD) is False


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"growth": 1.1}, SETTLES),
        ({"growth": 0.9}, SETTLES),
        ({"noise_growth": 0.9}, NOISE_SETTLES),
        ({"network": lambda *cell: as_predicted(*cell, factor=1.05, adamw=(1.0, 1.0))}, NEARER),
        ({"free": 0.11}, "right angles errs less than"),
        ({"free": 0.095}, "right angles errs less by more"),
        ({"held": 0.11}, "held norm errs less than"),
        ({"held": 0.095}, "held norm errs less by more"),
    ],
)
def test_sizes_and_errors_that_are_otherwise_are_a_no(changes, words):
    verdicts = e45.check(record(**changes))
    assert holds(verdicts, words) is False


def test_layers_further_apart_than_adamws_are_a_no():
    def uneven(kind, shrink, b1):
        found = as_predicted(kind, shrink, b1)
        return found * np.array([1.5, 1.0]) if kind == "free" else found

    assert holds(e45.check(record(network=uneven)), ALIKE) is False


def test_cells_in_which_any_step_has_killed_the_network_are_not_compared():
    """Elsewhere the angles are right; where the free step's network is dead, anything."""

    def wild(kind, shrink, b1):
        return as_predicted(kind, shrink, b1) * (100.0 if shrink > 5e-3 and kind == "free" else 1.0)

    made = record(network=wild)
    assert holds(e45.check(made), IN_NETWORK) is False
    cells = {"kind": np.arange(6.0) % 3, "rate": np.full(6, 0.01), "decay": [0.2] * 3 + [1.0] * 3}
    errors = np.repeat([0.1, 0.08, 0.08, 0.1, 0.9, 0.1], SEEDS).reshape(6, SEEDS)
    made.groups["search"] = {
        **{name: variable("cell", np.asarray(values)) for name, values in cells.items()},
        **{half: variable(("cell", "seed"), errors) for half in ("even", "odd")},
        "edge": variable("cell", np.zeros(6, bool)),
    }
    assert holds(e45.check(made), IN_NETWORK) is True
    alive = living(made.groups[e45.NETWORK], made.groups["search"])
    np.testing.assert_allclose(alive["shrink"].values, 2e-3)
    errors[:] = 0.9
    assert not any(e45.NETWORK in each.claim and "turns" in each.claim for each in e45.check(made))


# The optimizer.


def stepped(kind, params, gradients, *, rate=0.1, decay=0.5, b1=0.8, by_size=False):
    """Weights after each gradient."""
    numbers = {"kind": KINDS.index(kind), "rate": rate, "decay": decay, "b1": b1}
    made = turning_adam(jax.tree.map(jnp.asarray, numbers), ("layer",))
    return walked(made, params, gradients, by_size)


def walked(made, params, gradients, by_size=False):
    """The same; `by_size` divides a gradient by the size of the weights, as before a norm."""

    def step(carry, gradient):
        params, state = carry
        if by_size:
            gradient = jax.tree.map(lambda g, w: g / jnp.linalg.norm(w), gradient, params)
        updates, state = made.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.jit(lambda p, g: jax.lax.scan(step, (p, made.init(p)), g)[1])(params, gradients)


@pytest.fixture(scope="module")
def walk():
    """First weights and twelve gradients of a matrix that turns and of weights that do not."""
    random = np.random.default_rng(11)
    params = {"layer": random.normal(size=(3, 5)), "other": random.normal(size=4)}
    gradients = {name: random.normal(0.3, 1.0, (12, *w.shape)) for name, w in params.items()}
    return jax.tree.map(jnp.asarray, (params, gradients))


def test_the_first_kind_is_adamw_of_optax(walk):
    expected = walked(optax.adamw(0.1, b1=0.8, b2=0.999, weight_decay=0.5), *walk)
    found = stepped("adamw", *walk)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_held_norm_turns_as_the_zoos_direction_preserving_adam(walk):
    """At the rate sqrt(2 lr wd); what does not turn is AdamW's."""
    params, gradients = walk
    found = stepped("held", params, gradients)
    expected = walked(
        normalized(np.sqrt(2 * 0.1 * 0.5), b1=0.8), params["layer"], gradients["layer"]
    )
    np.testing.assert_allclose(found["layer"], expected, rtol=1e-4, atol=1e-5)
    adamw = stepped("adamw", params, gradients)
    for kind in ("held", "free"):
        other = stepped(kind, params, gradients)["other"]
        np.testing.assert_allclose(other, adamw["other"], rtol=1e-5)


def test_a_free_step_is_at_right_angles_and_as_long_as_adams(walk):
    """Written out for one vector: decay along the weights, and a step across them."""
    params, gradients = walk
    found = np.asarray(stepped("free", params, gradients, rate=0.1, decay=0.2)["layer"])
    path = np.concatenate([np.asarray(params["layer"])[None], found])
    w, m, v = path[0][1], np.zeros(5), 0.0
    for t, g in enumerate(np.asarray(gradients["layer"])[:, 1], start=1):
        n = w / np.linalg.norm(w)
        d = g - (n @ g) * n
        m, v = 0.8 * m + 0.2 * d, 0.999 * v + 0.001 * (d @ d)
        across = m / (1 - 0.8**t)
        across = across - (n @ across) * n
        w = (1 - 0.1 * 0.2) * w - 0.1 * np.sqrt(5) * across / np.sqrt(v / (1 - 0.999**t))
        np.testing.assert_allclose(path[t][1], w, rtol=1e-3, atol=1e-5)
    first = path[1] - (1 - 0.1 * 0.2) * path[0]
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 0.1 * np.sqrt(5), rtol=1e-4)
    np.testing.assert_allclose(np.sum(first * path[0], axis=1), 0.0, atol=1e-5)


def test_gradients_that_agree_for_a_while_change_adamws_angle_and_not_that_of_right_angles():
    random = np.random.default_rng(2)
    drawn = random.normal(size=(800, 4, 30))
    for step in range(1, len(drawn)):
        drawn[step] = 0.9 * drawn[step - 1] + 0.1 * drawn[step]
    gradients = {"layer": jnp.asarray(drawn)}
    params = {"layer": jnp.asarray(random.normal(size=(4, 30)))}

    def angle(kind):
        path = np.asarray(
            stepped(kind, params, gradients, rate=0.02, decay=1.0, b1=0.9, by_size=True)["layer"],
            float,
        ).reshape(800, -1)[300:]
        lengths = np.linalg.norm(path, axis=1)
        cosine = np.sum(path[1:] * path[:-1], axis=1) / lengths[1:] / lengths[:-1]
        return np.sqrt(np.mean(np.arccos(np.clip(cosine, -1, 1)) ** 2))

    expected = e45.predicted_angle("free", 0.02, 0.9)
    assert expected == pytest.approx(0.2, rel=0.01)
    assert angle("free") == pytest.approx(expected, rel=0.08)
    assert abs(angle("adamw") / float(rotation_per_step(0.02, 0.9)) - 1) > 0.3


def test_cells_without_time_to_settle_or_with_large_steps_are_left_out():
    settings = {
        "kind": np.zeros(4), "rate": np.full(4, 0.01), "decay": np.array([0.1, 0.4, 1.0, 10.0]),
        "b1": np.full(4, 0.9),
    }  # fmt: skip
    step = np.arange(0, 1_000, 10)
    shape = (4, 2, len(step), 3)
    layers = {name: np.full(shape, 0.1) for name in ("angle", "length")}

    runs = ManyRuns(
        step=step, records={"layers": layers}, final={}, diverged=np.zeros((4, 2), bool)
    )
    config = dataclasses.replace(e45.PAPER, settling=2.0)
    found = e45._turning(config, settings, runs, 2, 1_000)
    np.testing.assert_allclose(found["shrink"].values, [4e-3, 1e-2])
