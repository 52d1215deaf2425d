"""Curvature, noise and optimum of single weights, against known surfaces and slow literal twins."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.compare import (
    chosen_weight,
    chosen_weights,
    coordinate_optimum,
    fixed_examples,
    ggn_diagonal,
    gradient_norm,
    hessian_diagonal,
    noise_over_examples,
    noise_over_minibatches,
    summed_gradient,
    whole_data,
)
from bayesfilt.compare.chosen_weights import pick
from bayesfilt.simulate import StepView, simulate
from bayesfilt.tasks import (
    Mlp,
    bowl_task,
    custom_task,
    dataset_from_arrays,
    load_digits,
    saddle_task,
    supervised_task,
    tracking_task,
    two_groups_task,
)
from bayesfilt.theory import OrnsteinUhlenbeck

BATCH = 5
CURVATURE = np.array([[2.0, 0.5, -0.3], [0.5, 0.04, 0.1], [-0.3, 0.1, 3.0]])
CURVATURE[1, 1] = 0.4


def small_mlp(dtype="float64", activation="tanh"):
    """A network of 4-3-3 on 40 examples; its second input is always 0."""
    rng = np.random.RandomState(0)
    inputs = rng.standard_normal((60, 4))
    inputs[:, 1] = 0
    labels = np.argmax(inputs[:, [0, 2, 3]] + 0.7 * rng.standard_normal((60, 3)), axis=1)
    data = dataset_from_arrays(inputs[:40], labels[:40], inputs[40:], labels[40:])
    return supervised_task(data, Mlp((4, 3, 3), activation), batch_size=BATCH, dtype=dtype)


def view_of(task, params, step=3):
    """A step at `params`, with a gradient on a minibatch of its own."""
    gradient = jax.grad(task.loss)(params, task.sample_batch(jax.random.key(9), step))
    return StepView(
        step=jnp.asarray(step, jnp.int32), params=params, loss=jnp.zeros(()), gradient=gradient,
        updates=gradient, opt_state=(),
    )  # fmt: skip


def everything(params):
    return chosen_weights(params, np.arange(sum(leaf.size for leaf in jax.tree.leaves(params))))


def measure(probe, task, params, step=3):
    return jax.tree.map(np.asarray, jax.jit(probe)(task, view_of(task, params, step)))


@pytest.fixture(scope="module")
def trained():
    """The small network after some steps, and every weight of it chosen."""
    task = small_mlp()
    params = simulate(jax.random.key(1), task, optax.adam(0.05), 60).params
    return task, params, everything(params)


@pytest.fixture(scope="module")
def found(trained):
    """The optimum of each of its weights."""
    task, params, chosen = trained
    return measure(coordinate_optimum(chosen, whole_data), task, params)


def raveled_loss(task, params, batch):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return flat, lambda vector: task.loss(unravel(vector), batch)


# Curvature.


@pytest.mark.equation("INST-1")
def test_the_curvature_is_the_diagonal_of_the_whole_hessian_of_the_summed_loss(trained):
    task, params, chosen = trained
    params = jax.tree.map(lambda leaf: -2 * leaf, params)  # wrong and sure: not convex
    flat, loss = raveled_loss(task, params, task.train)
    dense = BATCH * np.diag(jax.jit(jax.hessian(loss))(flat))
    found = measure(hessian_diagonal(chosen, whole_data), task, params)
    np.testing.assert_allclose(found, dense, rtol=1e-10, atol=1e-14)
    assert found.min() < 0 < found.max()  # not what a Gauss-Newton matrix could give


@pytest.mark.equation("INST-2")
def test_the_gauss_newton_diagonal_is_that_of_the_dense_matrix(trained):
    task, params, chosen = trained
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def logits(vector):
        return task.network.apply(unravel(vector), task.train.inputs)

    jacobian, dense = np.asarray(jax.jacrev(logits)(flat)), np.zeros(len(flat))
    for j, z in zip(jacobian, np.asarray(logits(flat)), strict=True):
        p = np.exp(z) / np.exp(z).sum()
        dense += np.diag(j.T @ (np.diag(p) - np.outer(p, p)) @ j) / len(jacobian)
    found = measure(ggn_diagonal(chosen, whole_data), task, params)
    np.testing.assert_allclose(found, BATCH * dense, rtol=1e-10, atol=1e-14)


def test_a_task_without_logits_has_no_gauss_newton_matrix():
    task = bowl_task(CURVATURE, 0.1, batch_size=BATCH, optimum=np.ones(3))
    with pytest.raises(ValueError, match="ggn_diagonal needs a Supervised task.*got a Bowl"):
        measure(ggn_diagonal(chosen_weights(task.start, [0]), whole_data), task, task.start)


# Noise.


@pytest.mark.equation("INST-3")
def test_the_noise_is_that_of_one_example_at_a_time_times_the_batch(trained):
    task, params, chosen = trained
    rows = []
    gradient = jax.jit(jax.grad(task.loss))
    for row in range(len(task.train.labels)):
        example = jax.tree.map(lambda array, row=row: array[row : row + 1], task.train)
        rows.append(jax.flatten_util.ravel_pytree(gradient(params, example))[0])
    variance = np.mean((rows - np.mean(rows, axis=0)) ** 2, axis=0)
    found = measure(noise_over_examples(chosen, whole_data), task, params)
    np.testing.assert_allclose(found, BATCH * variance, rtol=1e-10, atol=1e-14)


def test_the_two_measures_of_noise_agree(trained):
    task, params, chosen = trained
    exact = measure(noise_over_examples(chosen, whole_data), task, params)
    probe = noise_over_minibatches(jax.random.key(2), chosen, 4_000)
    alive = exact > 0
    ratio = measure(probe, task, params)[alive] / exact[alive]
    # Of a heavy-tailed gradient a variance is less certain than a Gaussian's.
    assert np.all(np.abs(ratio - 1) < 8 * np.sqrt(2 / 4_000))


def test_noise_over_examples_needs_examples():
    task = bowl_task(CURVATURE, 0.1, batch_size=BATCH, optimum=np.ones(3))
    with pytest.raises(ValueError, match="needs a task of examples, got a Bowl"):
        measure(noise_over_examples(chosen_weights(task.start, [0]), whole_data), task, task.start)


def test_the_noise_of_a_bowl_is_the_one_it_was_built_with():
    noise = np.diag([0.5, 2.0, 0.1])
    task = bowl_task(CURVATURE, noise, batch_size=BATCH, optimum=np.ones(3))
    probe = noise_over_minibatches(jax.random.key(0), everything(task.start), 20_000)
    found = measure(probe, task, task.start)
    np.testing.assert_allclose(found, BATCH * np.diag(noise), rtol=5 * np.sqrt(2 / 20_000))
    assert np.any(measure(probe, task, task.start, step=4) != found)


# The step's own minibatch.


def test_the_gradient_is_of_the_summed_loss_and_its_norm_of_the_mean(trained):
    task, params, chosen = trained
    view = view_of(task, params)
    batch = task.sample_batch(jax.random.key(9), 3)
    flat, loss = raveled_loss(task, params, batch)
    mean_gradient = np.asarray(jax.grad(loss)(flat))
    found = np.asarray(summed_gradient(chosen)(task, view))
    np.testing.assert_allclose(found, BATCH * mean_gradient, rtol=1e-12)
    assert gradient_norm(task, view) == pytest.approx(np.linalg.norm(mean_gradient))
    np.testing.assert_array_equal(chosen_weight(chosen)(task, view), flat)


# The coordinate optimum.


@pytest.mark.equation("INST-4")
def test_on_a_bowl_the_optimum_of_a_weight_is_where_the_others_put_it():
    """A20 eq. 10: w*_i = m_i - H_ij (w_j - m_j) / H_ii, the others summed."""
    minimum, weights = np.array([0.3, -0.2, 0.5]), np.array([0.1, 0.2, -0.4])
    task = bowl_task(CURVATURE, 0.1, batch_size=BATCH, optimum=minimum, start=weights)
    expected = []
    for i in range(3):
        others = [j for j in range(3) if j != i]
        pull = CURVATURE[i, others] @ (weights - minimum)[others]
        expected.append(minimum[i] - pull / CURVATURE[i, i])
    found = measure(coordinate_optimum(everything(task.start), whole_data), task, task.start)
    np.testing.assert_allclose(found.optimum, expected, rtol=1e-12)
    for curvature in (found.curvature, found.optimum_curvature):
        np.testing.assert_allclose(curvature, BATCH * np.diag(CURVATURE), rtol=1e-12)
    assert found.valid.all()
    assert found.evaluations.max() <= 2  # Newton is exact here: one step, and a look


def test_in_the_matched_world_the_optimum_is_the_one_of_the_step():
    precision = np.array([0.5, 20.0, 3e4])
    task = tracking_task(
        jax.random.key(0), OrnsteinUhlenbeck(0.1, 0.05), precision, 8, batch_size=BATCH
    )
    params = jnp.array([0.3, -0.1, 0.2])
    chosen = everything(params)
    found = measure(coordinate_optimum(chosen, whole_data), task, params, step=6)
    np.testing.assert_allclose(found.optimum, task.optimum[6], rtol=1e-12)
    np.testing.assert_allclose(found.optimum_curvature, precision, rtol=1e-12)
    noise = measure(noise_over_minibatches(jax.random.key(1), chosen, 20_000), task, params, step=6)
    np.testing.assert_allclose(noise, precision, rtol=5 * np.sqrt(2 / 20_000))


def searched(loss, flat, i, radius):
    """Best move of weight i on ever finer grids, in NumPy; inf where it is at the edge."""
    low, high, best = -radius, radius, 0.0
    for _ in range(9):
        grid = np.linspace(low, high, 401)
        heights = loss(flat + grid[:, None] * np.eye(len(flat))[i])
        best, spacing = grid[np.argmin(heights)], grid[1] - grid[0]
        low, high = best - 2 * spacing, best + 2 * spacing
        if spacing < 1e-7 * radius:
            break
    return best if abs(best) < radius * (1 - 1e-6) else np.inf


def test_the_optimum_of_a_network_is_where_a_grid_search_finds_it(trained, found):
    task, params, _ = trained
    flat, loss = raveled_loss(task, params, task.train)
    losses = jax.jit(jax.vmap(loss))
    heights = lambda points: np.asarray(losses(jnp.asarray(points)))  # noqa: E731
    best = np.array([searched(heights, np.asarray(flat), i, 2.0) for i in range(len(flat))])
    alike = found.valid & np.isfinite(best)
    assert alike.sum() > 8
    assert (~found.valid).sum() > 2
    # A minimum of rounded heights is known to about the root of the rounding.
    np.testing.assert_allclose(found.optimum[alike], (flat + best)[alike], atol=2e-5)
    # What Newton does not find is not there: the grid's minimum is at the edge, or flat.
    touched = np.asarray(jnp.abs(jax.grad(loss)(flat)) > 0)
    assert not np.any(np.isfinite(best) & touched & ~found.valid)


def test_among_the_kinks_of_a_relu_the_optimum_is_still_lower_than_its_neighbours():
    task = small_mlp(activation="relu")
    params = task.init_params(jax.random.key(1))
    chosen = chosen_weights(params, np.r_[:12, 15:24])
    found = measure(coordinate_optimum(chosen, whole_data), task, params)
    flat, loss = raveled_loss(task, params, task.train)
    losses = jax.jit(jax.vmap(loss))
    assert found.valid.sum() >= 8
    along = np.eye(len(flat))[chosen.index]
    there = flat + along * np.where(found.valid, found.optimum - pick(chosen, params), 0)[:, None]
    for away in (-5e-3, 5e-3):
        higher = losses(there + away * along) > losses(there)
        assert np.all(higher[found.valid])


def test_the_curvatures_beside_the_optimum_are_exact(trained, found):
    task, params, _ = trained
    flat, loss = raveled_loss(task, params, task.train)
    gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
    here = BATCH * np.diag(hessian(flat))
    np.testing.assert_allclose(found.curvature, here, rtol=1e-9, atol=1e-13)
    for i in np.flatnonzero(found.valid):
        there = flat.at[i].set(found.optimum[i])
        assert abs(gradient(there)[i]) < 1e-6
        dense = BATCH * hessian(there)[i, i]
        assert found.optimum_curvature[i] == pytest.approx(float(dense), rel=1e-3)


def test_a_weight_that_no_example_touches_has_no_optimum(trained, found):
    task, params, chosen = trained
    # The first layer's weights are (3, 4), row by row, before or after its bias.
    leaves = jax.tree.leaves(jax.tree.map(jnp.zeros_like, params))
    assert leaves[0].shape == (3, 4)
    dead = np.array([1, 5, 9])
    assert not found.valid[dead].any()
    assert np.isnan(found.optimum[dead]).all()
    np.testing.assert_array_equal(found.curvature[dead], 0)
    np.testing.assert_array_equal(summed_gradient(chosen)(task, view_of(task, params))[dead], 0)


def test_the_pixels_that_are_always_blank_are_dead_in_the_digits():
    task = supervised_task(load_digits(), Mlp((64, 2, 10)), batch_size=32, dtype="float64")
    params = task.init_params(jax.random.key(0))
    blank = np.flatnonzero(np.all(np.asarray(task.train.inputs).reshape(-1, 64) == 0, axis=0))
    assert len(blank) > 2
    chosen = chosen_weights(params, blank)  # weights of the first hidden unit
    batch_at = fixed_examples(jax.random.key(0), task, 64)
    found = measure(coordinate_optimum(chosen, batch_at), task, params)
    assert not found.valid.any()
    np.testing.assert_array_equal(found.curvature, 0)


def test_on_a_pass_the_weight_along_it_has_no_optimum_nearby():
    """d (y² - r²)²/4r² has a maximum at y = 0 and minima at y = ± r."""
    task = saddle_task(batch_size=BATCH, up=1.0, down=0.1, reach=1.5, start_spread=0.0)
    on_top, beside = jnp.zeros(2), jnp.array([0.4, 0.2])
    chosen = everything(on_top)
    near = coordinate_optimum(chosen, whole_data, trust_radius=1.0)
    found = measure(near, task, on_top)
    np.testing.assert_array_equal(found.valid, [True, False])
    np.testing.assert_allclose(found.curvature, BATCH * np.array([1.0, -0.1]), rtol=1e-12)
    assert np.isnan(found.optimum[1])
    assert np.isnan(found.optimum_curvature[1])
    # Downhill, but the minimum is 1.3 away.
    np.testing.assert_array_equal(measure(near, task, beside).valid, [True, False])
    far = measure(coordinate_optimum(chosen, whole_data, trust_radius=2.0), task, beside)
    np.testing.assert_allclose(far.optimum, [0.0, 1.5], atol=1e-7)
    np.testing.assert_allclose(far.optimum_curvature, BATCH * np.array([1.0, 0.2]), rtol=1e-3)


def line_task(loss, start=0.0):
    """A weight and a function of it: `loss(w)`."""
    params = {"w": jnp.full(1, start)}

    def whole(params, batch):
        return jnp.sum(loss(params["w"])) + 0 * jnp.sum(batch)

    return custom_task(params, whole, np.zeros((4, 1)), batch_size=BATCH)


@pytest.mark.parametrize(
    ("loss", "start", "optimum"),
    [
        (lambda w: jnp.sqrt(1 + (10 * (w - 1)) ** 2), 0.0, 1.0),  # Newton alone runs away
        (lambda w: jnp.abs(w - 0.7) + 1e-3 * w**2, 0.0, 0.7),  # a kink: slope jumps from - to +
        (lambda w: w**4, 1.0, 0.0),  # curvature 0 at the optimum: Newton crawls
        (lambda w: -jnp.cos(3 * w), 1.0, 0.0),  # starts where the curvature is negative
        (lambda w: jnp.exp(w) - 2 * w, -1.9, np.log(2)),  # Newton overshoots
        (lambda w: jnp.abs(w) ** 1.4, 0.5, 0.0),  # each Newton step leads further away
    ],
)
def test_a_search_keeps_to_where_an_optimum_can_be(loss, start, optimum):
    task = line_task(loss, start)
    probe = coordinate_optimum(everything(task.params), whole_data, trust_radius=3.0)
    found = measure(probe, task, task.params)
    assert found.valid.all()
    assert abs(found.optimum[0] - optimum) < 1e-3


@pytest.mark.parametrize(
    "loss", [lambda w: w, lambda w: -(w**2), jnp.exp, lambda w: 0 * w, lambda w: w**2 + 30 * w]
)
def test_without_an_optimum_in_reach_nothing_is_claimed(loss):
    task = line_task(loss, 0.25)
    found = measure(coordinate_optimum(everything(task.params), whole_data), task, task.params)
    assert not found.valid.any()
    assert np.isnan(found.optimum).all()
    assert found.evaluations.max() <= 5


def test_a_kink_below_which_the_loss_is_bent_downwards_is_not_valid():
    task = line_task(lambda w: jnp.abs(w - 0.7) - 0.01 * w**2)
    found = measure(coordinate_optimum(everything(task.params), whole_data), task, task.params)
    assert not found.valid.any()
    assert found.evaluations < 24  # found, and refused


def test_a_search_that_takes_too_long_is_not_valid():
    task = line_task(lambda w: jnp.sqrt(1 + (10 * (w - 1)) ** 2))
    probe = coordinate_optimum(everything(task.params), whole_data, max_evaluations=2)
    assert not measure(probe, task, task.params).valid.any()


def test_a_loss_that_is_not_a_number_has_no_optimum():
    task = line_task(lambda w: jnp.sqrt(w - 1))
    found = measure(coordinate_optimum(everything(task.params), whole_data), task, task.params)
    assert not found.valid.any()
    assert np.isnan(found.optimum).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trust_radius": 0.0}, "trust_radius > 0"),
        ({"trust_radius": np.inf}, "finite trust_radius"),
        ({"tolerance": -1e-4}, "tolerance > 0"),
        ({"max_evaluations": 1}, "max_evaluations >= 2"),
    ],
)
def test_nonsense_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"coordinate_optimum needs .*{message}"):
        coordinate_optimum(chosen_weights(jnp.ones(2), [0]), whole_data, **settings)


def some_of(found):
    """Weights of the first layer, dead ones among them, and what is known of them."""
    place = np.arange(12)
    return place, jax.tree.map(lambda values: values[place], found)


def test_float32_gives_float32_and_the_same_numbers_to_its_rounding(trained, found):
    _, params, _ = trained
    place, exact = some_of(found)
    chosen = chosen_weights(params, place)
    task = small_mlp(dtype="float32")
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    ours = measure(coordinate_optimum(chosen, whole_data), task, narrow)
    assert {leaf.dtype.name for leaf in ours} == {"float32", "bool", "int32"}
    both = ours.valid & exact.valid
    assert both.sum() >= exact.valid.sum() - 1
    np.testing.assert_allclose(ours.optimum[both], exact.optimum[both], atol=1e-3)


def test_a_batch_of_runs_finds_what_each_run_alone_finds(trained, found):
    task, params, _ = trained
    place, found = some_of(found)
    probe = coordinate_optimum(chosen_weights(params, place), whole_data)

    def at(scale, task):
        return probe(task, view_of(task, jax.tree.map(lambda leaf: scale * leaf, params)))

    both = jax.jit(jax.vmap(at, (0, None)))(jnp.array([1.7, 1.0]), task)
    for ours, alone in zip(both, found, strict=True):
        np.testing.assert_allclose(ours[1], alone, rtol=1e-9, atol=1e-12)
    assert np.any(both.optimum[0] != both.optimum[1])


# The fixed batch.


def test_fixed_examples_are_so_many_different_ones_and_the_same_at_every_step():
    task = small_mlp()
    batch_at = fixed_examples(jax.random.key(0), task, 16)
    first, later = batch_at(task, 0), batch_at(task, 77)
    np.testing.assert_array_equal(first.inputs, later.inputs)
    assert len(np.unique(np.asarray(first.inputs), axis=0)) == 16
    other = fixed_examples(jax.random.key(1), task, 16)(task, 0)
    assert np.any(np.asarray(other.inputs) != np.asarray(first.inputs))
    assert fixed_examples(jax.random.key(0), task, 40) is whole_data


def test_a_surface_is_seen_without_its_noise():
    task = two_groups_task(batch_size=BATCH, group_size=3)
    assert fixed_examples(jax.random.key(0), task, 7) is whole_data
    assert task.loss(task.minimum(), whole_data(task, 0)) == 0


def test_a_task_of_an_unknown_kind_needs_its_own_batch():
    with pytest.raises(ValueError, match="got a object; give a function"):
        whole_data(object(), 0)
