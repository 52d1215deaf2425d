import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bayesfilt.tasks import bowl_task, ravine_task, saddle_task, two_groups_task

CURVATURE = np.array([[4.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 0.3]])
NOISE = np.array([[1.0, 0.6, 0.0], [0.6, 2.0, -0.9], [0.0, -0.9, 3.0]])
OPTIMUM = np.array([1.0, -3.0, 0.2])


def test_a_batch_gradient_is_linear_in_the_distance_plus_that_batch_s_noise():
    task = bowl_task(CURVATURE, NOISE, batch_size=7, optimum=OPTIMUM)
    batch = task.sample_batch(jax.random.key(0), 0)
    weights = np.array([0.3, 0.7, -2.0])
    gradient = jax.jit(jax.grad(task.loss))(weights, batch)
    expected = CURVATURE @ (weights - OPTIMUM) + np.asarray(batch)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_noise_in_the_mean_gradient_has_the_covariance_of_one_example_over_the_batch(
    batch_size,
):
    task = bowl_task(CURVATURE, NOISE, batch_size=batch_size, optimum=OPTIMUM)
    keys = jax.random.split(jax.random.key(1), 40_000)
    slope = jax.grad(task.loss)
    draw = jax.jit(jax.vmap(lambda key: slope(task.minimum(), task.sample_batch(key, 0))))
    drawn = draw(keys)
    wanted = NOISE / batch_size
    # An estimated covariance has variance (R_ii R_jj + R_ij²)/n; the mean has R_ii/n.
    spread = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / len(keys))
    assert np.all(np.abs(np.cov(drawn.T) - wanted) < 5 * spread)
    assert np.all(np.abs(drawn.mean(axis=0)) < 5 * np.sqrt(np.diag(wanted) / len(keys)))
    np.testing.assert_allclose(task.noise_covariance(), NOISE, atol=1e-12)


def test_the_summed_gradient_sees_batch_size_times_curvature_and_noise():
    few = bowl_task(CURVATURE, NOISE, batch_size=1, optimum=OPTIMUM)
    many = bowl_task(CURVATURE, NOISE, batch_size=9, optimum=OPTIMUM)
    key, weights = jax.random.key(2), jnp.array([2.0, 0.0, 1.0])

    @jax.jit
    def summed(task):
        slope = jax.grad(task.loss)
        batch = task.sample_batch(key, 0)
        away = slope(weights, batch) - slope(task.minimum(), batch)
        return task.batch_size * away, task.batch_size * slope(task.minimum(), batch)

    (slope_few, noise_few), (slope_many, noise_many) = summed(few), summed(many)
    np.testing.assert_allclose(slope_many, 9 * slope_few, rtol=1e-12)
    np.testing.assert_allclose(noise_many, 3 * noise_few, rtol=1e-12)


def test_a_noise_free_bowl_is_legal_and_flat_directions_are_too():
    flat = np.diag([2.0, 0.0])
    task = bowl_task(flat, 0.0, batch_size=3, optimum=[1.0, 5.0])
    batch = task.sample_batch(jax.random.key(0), 0)
    gradient = jax.grad(task.loss)(jnp.array([2.0, -7.0]), batch)
    np.testing.assert_array_equal(gradient, [2.0, 0.0])


@given(
    hnp.arrays(np.float64, (3, 3), elements=st.floats(-1, 1)),
    st.integers(-12, 12),
)
def test_any_product_of_a_matrix_with_its_transpose_is_a_covariance(root, decade):
    matrix = root @ root.T * 10.0**decade
    task = bowl_task(np.eye(3), matrix, batch_size=1, optimum=np.zeros(3), dtype="float64")
    scale = np.abs(matrix).max()
    np.testing.assert_allclose(task.noise_covariance(), matrix, rtol=0, atol=1e-9 * scale)


SURFACES = {
    "bowl": lambda: bowl_task(CURVATURE, NOISE, batch_size=2, optimum=OPTIMUM),
    "saddle": lambda: saddle_task(batch_size=2, up=3.0, down=0.5, reach=2.0),
    "ravine": lambda: ravine_task(batch_size=2, floor=0.7, wall=30.0),
}


@pytest.mark.parametrize("make", SURFACES.values(), ids=SURFACES)
def test_the_minimum_is_flat_at_height_zero_and_lowest_around(make):
    task = make()
    minimum = task.minimum()
    assert task.expected_loss(minimum) == 0
    np.testing.assert_allclose(jax.jit(jax.grad(task.expected_loss))(minimum), 0, atol=1e-14)
    nearby = minimum + 0.3 * np.random.default_rng(0).normal(size=(200, *minimum.shape))
    assert jnp.all(jax.jit(jax.vmap(task.expected_loss))(nearby) > 0)
    assert task.loss(minimum, task.sample_batch(jax.random.key(1), 0)) == 0


@pytest.mark.parametrize("make", SURFACES.values(), ids=SURFACES)
def test_the_reported_curvature_is_the_second_derivative(make):
    task = make()
    measure = jax.jit(lambda point: (task.hessian(point), jax.hessian(task.expected_loss)(point)))
    for point in 2 * np.random.default_rng(3).normal(size=(5, *task.minimum().shape)):
        reported, measured = measure(point)
        np.testing.assert_allclose(reported, measured, rtol=1e-10, atol=1e-10)


def test_the_saddle_goes_up_on_one_side_and_down_on_the_other():
    task = saddle_task(batch_size=1, up=3.0, down=0.5, reach=2.0)
    origin = jnp.zeros(2)
    np.testing.assert_array_equal(task.hessian(origin), np.diag([3.0, -0.5]))
    np.testing.assert_array_equal(jax.grad(task.expected_loss)(origin), 0)
    np.testing.assert_allclose(task.hessian(task.minimum()), np.diag([3.0, 1.0]))
    assert task.expected_loss(jnp.array([0.0, -2.0])) == 0  # the other minimum
    assert task.expected_loss(origin) == 0.5 * 2.0**2 / 4
    assert not np.array_equal(
        task.init_params(jax.random.key(0)), task.init_params(jax.random.key(1))
    )


def test_the_ravine_s_curvature_at_the_minimum_is_known():
    task = ravine_task(batch_size=1, floor=0.5, wall=200.0)
    np.testing.assert_allclose(np.linalg.det(task.hessian(task.minimum())), 0.5 * 200.0)
    assert np.linalg.cond(task.hessian(task.minimum())) > 1000


def test_two_groups_have_the_sizes_curvature_and_noise_asked_for():
    task = two_groups_task(
        batch_size=4, group_size=5_000, large_weight=7.0, small_weight=0.2,
        quiet_gradient=0.03, loud_gradient=2.0,
    )  # fmt: skip
    minimum = task.minimum()
    assert set(np.abs(minimum["large_weights"]).tolist()) == {7.0}
    assert set(np.abs(minimum["small_weights"]).tolist()) == {0.2}
    slope = jax.jit(jax.grad(task.loss))
    batch = task.sample_batch(jax.random.key(0), 0)
    noise = slope(minimum, batch)
    for group, scale in {"large_weights": 0.03, "small_weights": 2.0}.items():
        assert abs(noise[group].std() / (scale / 2) - 1) < 5 / np.sqrt(2 * 5_000)
    moved = jax.tree.map(lambda weight: weight + 0.5, minimum)
    pull = jax.tree.map(jnp.subtract, slope(moved, batch), noise)
    np.testing.assert_allclose(pull["large_weights"], 0.03**2 * 0.5, rtol=1e-9)
    np.testing.assert_allclose(pull["small_weights"], 2.0**2 * 0.5, rtol=1e-9)
    # Each group has noise of its own: two independent samples correlate by 1/√n.
    together = np.corrcoef(batch["large_weights"], batch["small_weights"])[0, 1]
    assert abs(together) < 5 / np.sqrt(5_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"curvature": np.ones((2, 3))}, "square matrix curvature"),
        ({"curvature": np.eye(2) * np.nan}, "finite numbers in curvature"),
        ({"curvature": [[1.0, 0.5], [0.4, 1.0]]}, "symmetric curvature"),
        ({"curvature": [[1.0, 2.0], [2.0, 1.0]]}, "curvature without negative eigenvalues, got -1"),
        ({"gradient_noise": np.eye(3)}, r"gradient_noise of shape \(2, 2\), got \(3, 3\)"),
        ({"gradient_noise": -1.0}, "gradient_noise >= 0"),
        ({"optimum": [1.0]}, "2 finite numbers in optimum"),
        ({"start": [1.0, np.inf]}, "2 finite numbers in start"),
        ({"batch_size": 0}, "batch_size >= 1, got batch_size=0"),
    ],
)
def test_a_bowl_that_makes_no_sense_is_refused_in_one_line(settings, message):
    legal = {
        "curvature": np.eye(2),
        "gradient_noise": 1.0,
        "batch_size": 1,
        "optimum": np.zeros(2),
    }
    with pytest.raises(ValueError, match=message) as caught:
        bowl_task(**{**legal, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (saddle_task, {"reach": 0.0}),
        (saddle_task, {"down": -1.0}),
        (saddle_task, {"start_spread": -1.0}),
        (ravine_task, {"wall": float("inf")}),
        (two_groups_task, {"group_size": 0}),
        (two_groups_task, {"loud_gradient": 0.0}),
        (two_groups_task, {"small_weight": -0.1}),
    ],
)
def test_surfaces_refuse_numbers_that_would_turn_them_over(make, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        make(batch_size=1, **settings)
