"""The Kronecker filter: the filter of the full matrix, its limits, and its edges."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import expm

from bayesfilt.filters import (
    Filter,
    GradientStream,
    KroneckerBelief,
    change_bases,
    diagonal_filter,
    filter_stream,
    kronecker_filter,
    stream_log_likelihood,
)
from bayesfilt.theory import (
    JointBasis,
    KroneckerFactors,
    OrnsteinUhlenbeck,
    joint_basis,
    pair_precision,
    whitened_step,
)

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
DRIFT = OrnsteinUhlenbeck(drift_scale=0.3, stationary_variance=1.7)
RANDOM_WALK = OrnsteinUhlenbeck(drift_scale=0.2, stationary_variance=np.inf)
ROWS, COLUMNS, STEPS = 3, 2, 25


def stacked(matrix):
    """Columns of a matrix under one another: what A ⊗ G acts on."""
    return np.swapaxes(np.asarray(matrix), -1, -2).reshape(*np.shape(matrix)[:-2], -1)


def orthogonal(rng, side):
    return np.linalg.qr(rng.normal(size=(side, side)))[0]


class Layer:
    """A layer whose curvature keeps its eigenvectors, and a stream of its gradients."""

    def __init__(self, seed, *, missing=0.0, transition=DRIFT, rank=ROWS):
        rng = np.random.default_rng(seed)
        self.transition = transition
        axes = orthogonal(rng, ROWS), orthogonal(rng, COLUMNS)
        loud = rng.lognormal(0, 1, size=(STEPS, ROWS)), rng.lognormal(0, 1, size=(STEPS, COLUMNS))
        loud[0][:, rank:] = 0
        self.factors = KroneckerFactors(
            *(np.einsum("ij,tj,kj->tik", u, x, u) for u, x in zip(axes, loud, strict=True))
        )
        roots = [np.einsum("ij,tj->tij", u, np.sqrt(x)) for u, x in zip(axes, loud, strict=True)]
        self.mean = 0.7 + rng.normal(size=(ROWS, COLUMNS))
        self.pair_variance = rng.gamma(3.0, 0.4, size=(ROWS, COLUMNS))
        self.bases = joint_basis(KroneckerFactors(*(jnp.array(f[0]) for f in self.factors)))
        optimum = self.mean + np.cumsum(0.3 * rng.normal(size=(STEPS, ROWS, COLUMNS)), axis=0)
        taken_at = 2.0 + rng.normal(size=(STEPS, ROWS, COLUMNS))
        noise = rng.normal(size=(STEPS, ROWS, COLUMNS))
        g, a = self.factors
        self.stream = GradientStream(
            gradient=g @ (taken_at - optimum) @ a + roots[0] @ noise @ np.swapaxes(roots[1], 1, 2),
            precision=pair_precision(KroneckerFactors(jnp.array(g), jnp.array(a)), self.bases),
            taken_at=taken_at,
            valid=rng.random(STEPS) >= missing,
        )

    @property
    def kalman(self):
        return kronecker_filter(self.transition)

    @property
    def belief(self):
        return self.kalman.init(self.mean, self.pair_variance, self.bases)

    @property
    def likelihood(self):
        return stream_log_likelihood(
            self.kalman, self.belief, self.stream, precision_from="curvature"
        )


def dense(belief):
    """Covariance that a belief stands for, of the columns under one another."""
    rows, columns = (np.asarray(axes) for axes in belief.bases)
    axes = np.einsum("...ij,...kl->...ikjl", columns, rows)
    axes = axes.reshape(*axes.shape[:-4], ROWS * COLUMNS, ROWS * COLUMNS)
    return axes * stacked(belief.pair_variance)[..., None, :] @ np.swapaxes(axes, -1, -2)


def full_matrix_filter(layer, *, rebased=True, informative=False):
    """The Kalman filter of the stacked weights, with A ⊗ G as one matrix, in NumPy."""
    eta, sigma2 = layer.transition
    kept = np.exp(-(eta**2) / (2 * sigma2))
    added = eta**2 if np.isinf(sigma2) else sigma2 * (1 - kept**2)
    size = ROWS * COLUMNS
    mean, covariance, total = stacked(layer.mean), dense(layer.belief), 0.0
    predicted, conditioned = [], []
    for t in range(STEPS):
        predicted.append((mean, covariance))
        if layer.stream.valid[t]:
            curvature = np.kron(layer.factors.columns[t], layer.factors.rows[t])
            surprise = stacked(layer.stream.gradient[t])
            if rebased:
                surprise = surprise + curvature @ (mean - stacked(layer.stream.taken_at[t]))
            seen = curvature @ covariance
            if informative:  # a singular curvature has no density, but adds information
                covariance = np.linalg.inv(np.linalg.inv(covariance) + curvature)
                mean = mean - covariance @ surprise
            else:
                spread = seen @ curvature + curvature
                multiplier = np.linalg.solve(spread, seen).T
                logdet = np.linalg.slogdet(spread)[1]
                total -= 0.5 * (surprise @ np.linalg.solve(spread, surprise) + logdet)
                total -= 0.5 * size * np.log(2 * np.pi)
                mean, covariance = mean - multiplier @ surprise, covariance - multiplier @ seen
        conditioned.append((mean, covariance))
        mean, covariance = kept * mean, kept**2 * covariance + added * np.eye(size)
    return predicted, conditioned, (mean, covariance), total


def assert_believes(belief, mean, covariance):
    assert_allclose(stacked(belief.mean), mean, **TIGHT)
    assert_allclose(dense(belief), covariance, **TIGHT)
    marginal = np.diagonal(covariance, axis1=-2, axis2=-1)
    assert_allclose(stacked(belief.variance), marginal, **TIGHT)


@pytest.mark.equation("KRON-2", "KRON-3", "KF-6")
@pytest.mark.parametrize("transition", [DRIFT, RANDOM_WALK], ids=["drift", "random walk"])
@pytest.mark.parametrize(
    ("missing", "rebased"), [(0.0, True), (0.4, True), (1.0, True), (0.4, False)]
)
def test_it_is_the_full_matrix_filter_while_the_eigenvectors_stay(transition, missing, rebased):
    layer = Layer(1, missing=missing, transition=transition)
    stream = layer.stream if rebased else layer.stream._replace(taken_at=None)
    filtered = filter_stream(layer.kalman, layer.belief, stream)
    predicted, conditioned, last, total = full_matrix_filter(layer, rebased=rebased)
    for ours, twin in ((filtered.predicted, predicted), (filtered.conditioned, conditioned)):
        assert_believes(ours, *map(np.array, zip(*twin, strict=True)))
    assert_believes(filtered.last, *last)
    likelihood = stream_log_likelihood(
        layer.kalman, layer.belief, stream, precision_from="curvature"
    )
    assert_allclose(likelihood, total, **TIGHT)


@pytest.mark.parametrize("rank", [1, 2])
def test_singular_factors_add_information_where_they_have_some(rank):
    layer = Layer(2, missing=0.2, rank=rank)
    last = filter_stream(layer.kalman, layer.belief, layer.stream).last
    assert_believes(last, *full_matrix_filter(layer, informative=True)[2])
    assert np.isfinite(layer.likelihood)


@pytest.mark.equation("KRON-4")
def test_check_E3_at_rest_without_a_prior_the_filter_whitens():
    eta = 1e-3
    layer = Layer(3, transition=OrnsteinUhlenbeck(eta, np.inf))
    factors = KroneckerFactors(*(jnp.array(factor[0]) for factor in layer.factors))
    basis = joint_basis(factors)
    gradient, precision = jnp.array(layer.stream.gradient[0]), pair_precision(factors, basis)
    still = jnp.zeros_like(gradient)

    def step(_, belief):
        return layer.kalman.condition(layer.kalman.predict(belief), still, precision)

    start = layer.kalman.init(jnp.zeros((ROWS, COLUMNS)), eta, basis)
    settled = jax.lax.fori_loop(0, 30_000, step, start)
    moved = layer.kalman.condition(settled, gradient, 0 * precision + 1e-30)  # at this variance
    values, vectors = np.linalg.eigh(np.kron(factors.columns, factors.rows))
    whitened = eta * (vectors / np.sqrt(values)) @ vectors.T @ stacked(gradient)
    gain = eta * np.sqrt(values.max())
    assert gain < 3e-3
    assert_allclose(stacked(moved.mean), -whitened, rtol=0, atol=gain * np.abs(whitened).max())
    assert_allclose(stacked(whitened_step(gradient, factors, eta)), whitened, **TIGHT)


def test_in_the_weights_own_axes_it_is_the_diagonal_filter():
    layer = Layer(4, missing=0.3)
    belief = layer.kalman.init(layer.mean, layer.pair_variance)
    ours = filter_stream(layer.kalman, belief, layer.stream)
    plain = diagonal_filter(DRIFT)
    twin = filter_stream(plain, plain.init(layer.mean, layer.pair_variance), layer.stream)
    for name in ("predicted", "conditioned", "last"):
        assert_allclose(getattr(ours, name).mean, getattr(twin, name).mean, rtol=1e-14)
        assert_allclose(getattr(ours, name).variance, getattr(twin, name).variance, rtol=1e-14)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-13), ours.innovation, twin.innovation)


def test_new_axes_keep_the_mean_and_the_diagonal_of_the_covariance():
    layer = Layer(5)
    rng = np.random.default_rng(50)
    bases = JointBasis(*(jnp.array(orthogonal(rng, side)) for side in (ROWS, COLUMNS)))
    changed = change_bases(layer.belief, bases)
    assert_array_equal(changed.mean, layer.mean)
    axes = np.kron(bases.columns, bases.rows)
    turned = axes.T @ dense(layer.belief) @ axes
    assert_allclose(stacked(changed.pair_variance), np.diag(turned), **TIGHT)
    lost = turned - np.diag(np.diag(turned))
    assert np.abs(lost).max() > 0.1  # approximate, and it shows
    nearest = np.linalg.norm(dense(changed) - dense(layer.belief))
    for i in range(ROWS * COLUMNS):
        bump = np.zeros(ROWS * COLUMNS)
        bump[i] = 1e-3
        other = axes @ np.diag(np.diag(turned) + bump) @ axes.T
        assert np.linalg.norm(other - dense(layer.belief)) > nearest


def test_axes_in_another_order_change_nothing_that_is_believed():
    layer = Layer(6, missing=0.2)
    order, flip = jnp.array([1, 2, 0]), jnp.array([1.0, -1.0])
    bases = JointBasis(layer.bases.rows[:, order], layer.bases.columns * flip)
    stream = layer.stream._replace(precision=layer.stream.precision[:, order])
    other = filter_stream(layer.kalman, change_bases(layer.belief, bases), stream).last
    one = filter_stream(layer.kalman, layer.belief, layer.stream).last
    assert_allclose(other.mean, one.mean, **TIGHT)
    assert_allclose(dense(other), dense(one), **TIGHT)


def test_when_the_axes_turn_it_stays_near_the_full_matrix_and_ahead_of_the_diagonal():
    rng, steps, eta = np.random.default_rng(0), 1200, 0.05
    loud, axes = (np.geomspace(0.1, 10, 4), np.geomspace(0.1, 10, 3)), []
    for side in (4, 3):
        twist = rng.normal(size=(side, side))
        turn = expm(0.01 * (twist - twist.T) / np.linalg.norm(twist - twist.T, 2))
        start = orthogonal(rng, side)
        axes.append(np.array([np.linalg.matrix_power(turn, t) @ start for t in range(steps)]))
    kalman = kronecker_filter(OrnsteinUhlenbeck(eta, np.inf))
    still, precision = jnp.zeros((4, 3)), jnp.outer(*map(jnp.array, loud))

    def pairs(belief, bases):
        belief = kalman.condition(change_bases(belief, bases), still, precision)
        return kalman.predict(belief), belief.pair_variance

    bases = JointBasis(*map(jnp.array, axes))
    variances = jax.lax.scan(pairs, kalman.init(still, 0.1), bases)[1]
    full, own = 0.1 * np.eye(12), np.full(12, 0.1)
    errors, sums = [full, full], np.zeros(3)  # error covariance of any gain K: no sampling needed
    for t in range(steps):
        rotation = np.kron(axes[1][t], axes[0][t])
        curvature = rotation * stacked(precision) @ rotation.T
        full = np.linalg.inv(np.linalg.inv(full) + curvature)
        own = own / (1 + own * np.diag(curvature))
        gains = rotation * stacked(variances[t]) @ rotation.T, np.diag(own)
        left = [np.eye(12) - gain @ curvature for gain in gains]
        errors = [
            rest @ error @ rest.T + gain @ curvature @ gain
            for rest, error, gain in zip(left, errors, gains, strict=True)
        ]
        sums += [np.trace(each) for each in (full, *errors)] if t > steps // 2 else 0
        own = own + eta**2
        full, *errors = (each + eta**2 * np.eye(12) for each in (full, *errors))
    assert 1.05 < sums[1] / sums[0] < 1.2  # approximate, and it shows
    assert sums[2] / sums[0] > 1.8


def test_a_tree_of_layers_is_its_layers():
    one, other = Layer(7, missing=0.2), Layer(8)
    kalman = kronecker_filter(DRIFT)
    fields = zip(one.stream[:3], other.stream[:3], strict=True)
    tree = GradientStream(*({"a": x, "b": [y]} for x, y in fields), valid=one.stream.valid)
    both = kalman.init(
        {"a": one.mean, "b": [other.mean]}, 0.4, {"a": one.bases, "b": [other.bases]}
    )
    alone = kalman.init(one.mean, 0.4, one.bases)
    last = filter_stream(kalman, both, tree).last
    twin = filter_stream(kalman, alone, one.stream).last
    assert_array_equal(last.mean["a"], twin.mean)
    assert_array_equal(last.variance["a"], twin.variance)
    assert last.variance["b"][0].shape == (ROWS, COLUMNS)


def test_filters_and_streams_vmap():
    layers = [Layer(seed, missing=0.2) for seed in (9, 10)]
    streams = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[layer.stream for layer in layers])
    beliefs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[layer.belief for layer in layers])
    drifts = OrnsteinUhlenbeck(jnp.array([0.3, 0.1]), jnp.array([1.7, 0.6]))
    filters = jax.vmap(kronecker_filter)(drifts)
    together = jax.vmap(filter_stream)(filters, beliefs, streams).last
    for row, layer in enumerate(layers):
        kalman = kronecker_filter(jax.tree.map(lambda x, row=row: float(x[row]), drifts))
        alone = filter_stream(kalman, layer.belief, layer.stream).last
        assert_allclose(together.mean[row], alone.mean, rtol=1e-12)
        assert_allclose(together.variance[row], alone.variance, rtol=1e-12)


def test_what_was_not_observed_is_not_looked_at():
    layer = Layer(11, missing=0.4)
    hidden = [
        np.where(layer.stream.valid[:, None, None], leaf, np.nan) for leaf in layer.stream[:3]
    ]
    stream = GradientStream(*hidden, valid=layer.stream.valid)
    holes = filter_stream(layer.kalman, layer.belief, stream).last
    plain = filter_stream(layer.kalman, layer.belief, layer.stream).last
    jax.tree.map(assert_array_equal, holes, plain)
    nothing = jnp.full((ROWS, COLUMNS), jnp.nan)
    silent = layer.kalman.condition(layer.belief, nothing, jnp.zeros((ROWS, COLUMNS)))
    jax.tree.map(assert_array_equal, silent, layer.belief)
    innovation = layer.kalman.innovation(layer.belief, nothing, jnp.zeros((ROWS, COLUMNS)))
    assert_array_equal(jnp.stack(innovation), 0)
    assert_array_equal(layer.kalman.log_density(innovation), 0)


def test_the_likelihood_has_the_derivatives_of_its_differences():
    layer = Layer(12, missing=0.3)
    equal = joint_basis(KroneckerFactors(jnp.eye(ROWS), jnp.eye(COLUMNS)))

    @jax.jit
    def score(numbers, bases):
        eta, sigma2, scale = numbers
        kalman = kronecker_filter(OrnsteinUhlenbeck(eta, sigma2))
        loud = KroneckerFactors(*(scale * jnp.asarray(factor) for factor in layer.factors))
        stream = layer.stream._replace(precision=pair_precision(loud, bases))
        belief = kalman.init(layer.mean, layer.pair_variance, bases)
        return stream_log_likelihood(kalman, belief, stream, precision_from="curvature")

    at, slopes = jnp.array([0.25, 1.1, 0.8]), jax.jit(jax.grad(score))
    for bases in (layer.bases, equal):
        for i, slope in enumerate(slopes(at, bases)):
            far = (float(score(at.at[i].multiply(np.exp(k * 1e-4)), bases)) for k in (1, -1, 2, -2))
            up, down, far_up, far_down = far
            wanted = (8 * (up - down) - (far_up - far_down)) / (12e-4 * at[i])
            assert_allclose(slope, wanted, rtol=1e-6)
            assert abs(slope) > 1e-3


def test_a_float32_belief_stays_float32():
    layer = Layer(13, missing=0.1)
    belief = layer.kalman.init(layer.mean.astype("float32"), 0.5, layer.bases)
    single = jax.tree.map(lambda x: x if x.dtype == bool else x.astype("float32"), layer.stream)
    last = filter_stream(layer.kalman, belief, single).last
    assert {leaf.dtype for leaf in jax.tree.leaves(last)} == {jnp.dtype("float32")}
    exact = filter_stream(layer.kalman, layer.kalman.init(layer.mean, 0.5, layer.bases), single)
    assert_allclose(last.mean, exact.last.mean, rtol=2e-4, atol=2e-4)
    half = layer.kalman.init(jnp.zeros((2, 2), jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}


def test_a_layer_without_weights_is_legal():
    kalman = kronecker_filter(DRIFT)
    belief = kalman.init(jnp.zeros((0, 3)))
    none = jnp.zeros((0, 3))
    assert kalman.condition(kalman.predict(belief), none, none).variance.shape == (0, 3)


def test_it_is_a_filter_with_the_same_names():
    kalman = kronecker_filter(DRIFT)
    assert isinstance(kalman, Filter)
    for name in ("init", "predict", "condition", "innovation", "log_density"):
        ours = list(inspect.signature(getattr(type(kalman), name)).parameters)
        law = list(inspect.signature(getattr(Filter, name)).parameters)
        assert ours[: len(law)] == law
    assert isinstance(kalman.init(jnp.ones((2, 2))), KroneckerBelief)


EYE = jnp.eye(2)
MATRIX = jnp.ones((2, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k: kronecker_filter(OrnsteinUhlenbeck(-1.0, 1.0)), "drift_scale"),
        (lambda k: kronecker_filter(OrnsteinUhlenbeck(jnp.ones(2), 1.0)), "one drift_scale"),
        (lambda k: jax.jit(kronecker_filter)(OrnsteinUhlenbeck(1.0, jnp.ones(2))), "one stat"),
        (lambda k: k.init(jnp.ones(3)), r"matrices of weights, got shape \(3,\)"),
        (lambda k: k.init(jnp.ones((2, 2, 2))), "matrices of weights"),
        (lambda k: k.init(jnp.ones((2, 2), int)), "floating"),
        (lambda k: k.init(MATRIX, -1.0), "variance >= 0"),
        (lambda k: kronecker_filter(RANDOM_WALK).init(MATRIX), "finite variance"),
        (lambda k: k.init(MATRIX, None, EYE), "a JointBasis for each leaf"),
        (lambda k: k.init([MATRIX], None, JointBasis(EYE, EYE)), "a JointBasis for each leaf"),
        (lambda k: k.init(MATRIX, None, JointBasis(EYE, jnp.eye(3))), r"got .*\(3, 3\)"),
        (lambda k: k.init(MATRIX, None, JointBasis(EYE, 2 * EYE)), "orthogonal bases, got columns"),
        (lambda k: k.init(MATRIX, None, JointBasis(jnp.nan * EYE, EYE)), "orthogonal bases"),
        (lambda k: change_bases(k.init(MATRIX), JointBasis(EYE, MATRIX)), "change_bases needs"),
        (lambda k: k.condition(k.init(MATRIX), jnp.ones((2, 3)), MATRIX), "gradient like it"),
        (lambda k: k.condition(k.init(MATRIX), MATRIX, jnp.ones((2, 1))), "precision like it"),
        (lambda k: k.innovation(k.init(MATRIX), MATRIX, MATRIX, EYE[0]), "taken_at like it"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(kronecker_filter(DRIFT))
    assert "\n" not in str(caught.value)


six_decades_each_way = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)


@pytest.mark.equation("KRON-2")
@settings(max_examples=40, deadline=None)
@given(
    eta=six_decades_each_way,
    sigma2=st.one_of(six_decades_each_way, st.just(np.inf)),
    loud=st.lists(st.one_of(six_decades_each_way, st.just(0.0)), min_size=6, max_size=6),
)
def test_over_twelve_decades_the_pairs_are_the_diagonal_filter_of_the_turned_gradient(
    eta, sigma2, loud
):
    """In other axes the same numbers: six pairs, each as loud as it likes, in both types."""
    transition, rng = OrnsteinUhlenbeck(eta, sigma2), np.random.default_rng(13)
    rows, columns = orthogonal(rng, ROWS), orthogonal(rng, COLUMNS)
    pairs, precision = rng.normal(size=(ROWS, COLUMNS)), np.reshape(loud, (ROWS, COLUMNS))
    pairs = pairs * np.sqrt(precision)
    for dtype in (np.float32, np.float64):
        g, h = (jnp.asarray(leaf, dtype) for leaf in (rows @ pairs @ columns.T, precision))
        bases = JointBasis(rows=jnp.asarray(rows, dtype), columns=jnp.asarray(columns, dtype))
        ours, twin = kronecker_filter(transition), diagonal_filter(transition)
        belief = ours.init(jnp.zeros_like(g), 0.7, bases)
        alone = twin.init(jnp.zeros_like(g), 0.7)
        for _ in range(3):
            belief = ours.predict(ours.condition(belief, g, h))
            alone = twin.predict(twin.condition(alone, jnp.asarray(pairs, dtype), h))
        assert_array_equal(belief.pair_variance, alone.variance)
        assert np.isfinite(belief.mean).all()
        eps = float(jnp.finfo(dtype).eps)
        # a turned gradient is rounded to its loudest pair, which then moves every pair
        spill = eps * np.abs(pairs).max() * np.asarray(alone.variance).max()
        atol = 64 * eps * np.abs(alone.mean).max() + 64 * 3 * spill
        assert_allclose(rows.T @ np.asarray(belief.mean) @ columns, alone.mean, rtol=0, atol=atol)
