"""e44: pulls of groups are right; its verdicts say no to weights that are not as claimed."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bayesfilt.records import Record, variable
from bayesfilt.tasks import custom_task
from experiments import e44_spared_weights as e44
from experiments.equal_loss import at_equal_loss, matched
from experiments.group_overfit import live_matrices, overfit_of, ranked_groups
from experiments.meaningless_inputs import Regression
from tests.experiments.made_digits import holds, made_digits

SEEDS = 5
SPARED = "spares the loudest quarter"
MORE = "under L2 the loudest quarter overfits more than the quietest"
FOR_ITS_SIZE = "for its size"
THAN_ADAMW = "under L2 the loudest quarter overfits more than under AdamW"
LEAD = "lead in overfitting"
ENDS = WEAKEST, STRONGEST = "at L2's weakest", "at L2's strongest"
BEST = "each at its best"
FALLS = "the held-out loss falls"
MEMORY = "by their squares"
FOUND = "than those of inputs with a meaning"


def spread(values, seeds=SEEDS):
    """Seeds around a level, a hundredth apart."""
    values = np.asarray(values, float)
    noise = np.random.default_rng(3).standard_normal((*values.shape, seeds))
    return values[..., None] * (1 + 1e-2 * noise)


def side(gap, square, change, losses=(0.1, 0.2, 0.4), rises: Any = 0.0, seeds=SEEDS):
    """One optimizer's quarters: alike for all coefficients but for what rises with the loss."""
    gap = np.asarray(gap, float) + rises * np.log(losses)[:, None]
    count, trained = len(losses), -0.1
    dims = ("coefficient", "quarter", "seed")
    return {
        "coefficient": variable("coefficient", np.arange(count)),
        "quarter": variable("quarter", list(e44.QUARTERS)),
        "held": variable(dims, trained + spread(gap, seeds)),
        "trained": variable(dims, np.full((count, 4, seeds), trained)),
        "square": variable(dims, spread(np.tile(square, (count, 1)), seeds)),
        "change": variable(dims, spread(np.tile(change, (count, 1)), seeds)),
        "training_loss": variable(("coefficient", "seed"), spread(losses, seeds)),
        "test_loss": variable(("coefficient", "seed"), spread([3.0, 1.0, 2.0][:count], seeds)),
    }


def made(l2=None, adamw=None, control=None, seeds=SEEDS):
    """A record of e44 in which the spared weights overfit, but for what is said."""
    l2 = {
        "gap": [0.0, 0.1, 0.2, 0.4], "square": [1.0, 1.0, 1.0, 2.0],
        "change": [0.0, 0.0, 0.0, -0.02], "losses": (0.15, 0.2, 0.3),
    } | (l2 or {})  # fmt: skip
    adamw = {
        "gap": [0.0, 0.1, 0.1, 0.2], "square": [1.0, 1.0, 1.0, 1.0], "change": [0.0] * 4,
    } | (adamw or {})  # fmt: skip
    control = {"held": [0.1, 1.0], "trained": [0.0, 0.0]} | (control or {})
    dims = ("kind", "seed")
    groups = {"0.005/adam_l2": side(**l2, seeds=seeds), "0.005/adamw": side(**adamw, seeds=seeds)}
    groups["control"] = {
        "held": variable(dims, spread(control["held"], seeds)),
        "trained": variable(dims, spread(control["trained"], seeds)),
        "square": variable(dims, np.ones((2, seeds))),
    }
    return Record(groups=groups, attributes={"config": {"rates": [0.005]}})


def test_spared_weights_that_overfit_are_a_yes():
    verdicts = e44.check(made())
    assert len(verdicts) == 11
    assert all(each.holds is True for each in verdicts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"l2": {"gap": [0.4, 0.2, 0.1, 0.0]}},
            [MORE, FOR_ITS_SIZE, THAN_ADAMW, LEAD, BEST, *ENDS],
        ),
        ({"l2": {"gap": [-0.4, -0.4, -0.4, -0.6]}}, [MORE, THAN_ADAMW, LEAD, BEST, *ENDS]),
        ({"l2": {"gap": [0.05, 0.1, 0.2, 0.15]}}, [THAN_ADAMW, LEAD, BEST, *ENDS]),
        ({"adamw": {"gap": [0.0, 0.1, 0.1, 0.6]}}, [THAN_ADAMW, LEAD, BEST, *ENDS]),
        ({"adamw": {"gap": [-0.5, 0.1, 0.1, 0.2]}}, [LEAD]),
        ({"l2": {"square": [0.1, 1.0, 1.0, 20.0], "gap": [0.01, 0.1, 0.2, 0.4]}}, [FOR_ITS_SIZE]),
        ({"l2": {"square": [1.0, 1.0, 1.0, 0.5]}}, [SPARED]),
        ({"adamw": {"square": [1.0, 1.0, 1.0, 4.0]}}, [SPARED]),
        ({"l2": {"change": [-0.02, 0.0, 0.0, 0.02]}}, [FALLS]),
        ({"control": {"held": [0.1, 2.0]}}, [MEMORY]),
        ({"control": {"held": [0.1, 0.5]}}, [MEMORY]),
        ({"control": {"held": [1.5, 1.0]}}, [FOUND]),
        ({"control": {"held": [0.1, 1.0], "trained": [-1.0, 0.0]}}, [FOUND]),
    ],
)
def test_any_part_that_is_otherwise_is_a_no_and_no_other_part(change, words):
    verdicts = e44.check(made(**change))
    for each in (SPARED, MORE, FOR_ITS_SIZE, THAN_ADAMW, LEAD, *ENDS, BEST, FALLS, MEMORY, FOUND):
        assert holds(verdicts, each) is (each not in words), each


def test_pulls_that_only_go_with_the_training_loss_are_no_lead_over_adamw():
    """Compared at unequal losses, L2's fit would be taken for its sparing."""
    gap = [0.0, 0.1, 0.2, 0.4]
    law = {"gap": gap, "rises": -0.3}
    same = made(l2={**law, "losses": (0.11, 0.13, 0.15)}, adamw={**law, "losses": (0.1, 0.4, 0.8)})
    ours, theirs = matched(
        same.groups["0.005/adam_l2"], same.groups["0.005/adamw"], e44._gap, np.arange(SEEDS)
    )
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert holds(e44.check(same), THAN_ADAMW) is not True


def test_coefficients_beyond_adamws_losses_do_not_count_and_none_at_all_is_not_judged():
    far = made(l2={"losses": (0.2, 5.0, 9.0), "rises": 1.0})
    ours, _ = matched(
        far.groups["0.005/adam_l2"], far.groups["0.005/adamw"], e44._gap, np.arange(SEEDS)
    )
    assert ours[-1] == pytest.approx(0.4 + np.log(0.2), abs=0.05)
    nowhere = e44.check(made(l2={"losses": (4.0, 5.0, 9.0)}))
    for words in (SPARED, MORE, THAN_ADAMW, LEAD):
        assert holds(nowhere, words) is None


def test_the_ends_of_the_grid_may_be_of_two_signs():
    turning = made(l2={"rises": -2.0, "gap": [0.0, 0.1, 0.2, -3.05]}, adamw={"gap": [0.0] * 4})
    verdicts = e44.check(turning)
    assert holds(verdicts, WEAKEST) is True
    assert holds(verdicts, STRONGEST) is False


@pytest.mark.parametrize("name", ["adam_l2", "adamw"])
def test_a_best_coefficient_at_the_edge_is_not_judged(name):
    record = made()
    record.groups[f"0.005/{name}"]["test_loss"].values[-1] = 0.1
    assert holds(e44.check(record), BEST) is None


def test_few_seeds_are_not_judged():
    assert all(each.holds is None for each in e44.check(made(seeds=3)))


def test_numbers_at_equal_loss_lie_between_their_neighbours():
    numbers = np.array([[1.0, 10.0], [3.0, 30.0], [2.0, 20.0]])
    found = at_equal_loss(np.array([0.2, 0.4, 0.05, 2.0]), np.array([0.1, 1.6, 0.4]), numbers)
    np.testing.assert_allclose(found[:2], [[1.5, 15.0], [2.0, 20.0]])
    assert np.isnan(found[2:]).all()


def test_pulls_are_what_a_small_shrink_of_the_group_takes_from_a_loss():
    data = {"x": jnp.array([[1.0, 2.0, -1.0], [0.5, -1.0, 3.0]]), "y": jnp.array([1.0, -2.0])}
    test = {"x": jnp.array([[2.0, 1.0, 1.0]]), "y": jnp.array([0.7])}

    def loss(params, batch):
        return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)

    task = custom_task({"w": jnp.zeros(3)}, loss, data, batch_size=1, test_data=test)
    weights = np.array([0.3, -0.8, 0.5])
    groups = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    found = overfit_of(task, {"w": jnp.asarray(weights)}, jnp.asarray(groups), 0.1)
    for place, group in enumerate(groups):

        def shrunk(fraction, data, group=group):
            x, y = (np.asarray(data[name], float) for name in ("x", "y"))
            return np.mean((x @ (weights * (1 - fraction * group)) - y) ** 2)

        for name, of in (("held", test), ("trained", data)):
            pull = (shrunk(-1e-4, of) - shrunk(1e-4, of)) / 2e-4
            np.testing.assert_allclose(found[name][place], pull, rtol=1e-3)
        change = shrunk(0.1, test) - shrunk(0.0, test)
        np.testing.assert_allclose(found["change"][place], change, rtol=1e-3)
        np.testing.assert_allclose(found["square"][place], group @ weights**2, rtol=1e-5)


def test_quarters_are_equal_ordered_and_of_the_places_alone():
    values = jnp.array([9.0, 4.0, 1.0, 7.0, 0.0, 3.0, 2.0, 8.0, 5.0, 6.0])
    places = np.array([1, 2, 3, 5, 6, 7, 8, 9])  # not the 9 and the 0 at the ends
    found = np.asarray(ranked_groups(values, places, 4))
    of_each = [sorted(np.asarray(values)[row > 0].tolist()) for row in found]
    assert of_each == [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_only_weights_of_matrices_that_an_example_reaches_are_counted():
    task = made_digits((3, 3))
    dark = task.train.inputs.at[:, 1, 2].set(0.0)
    task = dataclasses.replace(task, train=task.train._replace(inputs=dark))
    (found,) = live_matrices(task).values()
    flat = ravel_pytree(task.init_params(jax.random.key(0)))[0]
    assert len(flat) == 10 * 9 + 10  # the biases come last
    np.testing.assert_array_equal(found, [place for place in range(90) if place % 9 != 5])


def test_a_weight_without_a_meaning_pulls_the_held_out_loss_by_its_square():
    """And one that has the meaning it should have does not pull at all."""
    made = Regression(meaningful=3, meaningless=4, examples=20, held_out=100_000, deviation=0.5)
    weights = jnp.array([1.0, 1.0, 1.0, 0.5, -0.7, 0.3, 0.9])
    task = made.world_of(made.task(4), {}, jax.random.key(5))
    found = overfit_of(task, {"layer": weights}, made.kinds(), 0.1)
    np.testing.assert_allclose(found["held"][1] / found["square"][1], 1.0, atol=0.03)
    np.testing.assert_allclose(found["held"][0] / found["square"][0], 0.0, atol=0.03)
    np.testing.assert_allclose(found["change"][1] / found["square"][1], -0.095, atol=0.003)
    other = made.world_of(task, {}, jax.random.key(6))
    assert not np.allclose(task.data["inputs"], other.data["inputs"])
