"""Streams: how they are built, checked, and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.infer import StreamWarning, check_streams, gradient_streams, optimum_streams
from tests.infer.worlds import some_streams

RANDOM = np.random.default_rng(0)
WALKS = RANDOM.normal(size=(4, 30)).cumsum(axis=1)


def gradients(values=None, precision=1.0, **options):
    values = RANDOM.normal(size=(4, 30)) if values is None else values
    return gradient_streams(values, precision, 0.0, **options)


def test_numbers_where_nothing_is_valid_are_never_looked_at():
    streams = some_streams("gradient")
    checked, notes = check_streams(streams)
    assert np.isfinite(np.asarray(checked.observed)).all()
    assert notes == []
    assert checked.observed.dtype == jnp.float64


def test_float32_is_converted_and_a_note_says_so():
    checked, notes = check_streams(optimum_streams(WALKS.astype(np.float32)))
    assert checked.observed.dtype == checked.precision.dtype == jnp.float64
    assert len(notes) == 1 and "Recorded in float32" in notes[0]


def test_a_constant_row_and_an_empty_one_are_left_out_by_name():
    walks, valid = WALKS.copy(), np.ones(WALKS.shape, bool)
    walks[1] = 3.0
    valid[2, 1:] = False
    streams = optimum_streams(
        walks, valid=valid, layer=[0, 1, 1, 0], layer_names=("first", "second")
    )
    checked, notes = check_streams(streams)
    assert checked.observed.shape == (2, 30)
    np.testing.assert_array_equal(checked.layer, [0, 0])
    assert "fewer than 2 valid steps: 1 of 4 streams, 2 (second)" in notes[0]
    assert "one same value throughout: 1 of 4 streams, 1 (second)" in notes[1]


def test_one_stream_is_fitted_with_a_note():
    _, notes = check_streams(optimum_streams(WALKS[:1]))
    assert "nothing to pool" in notes[0]


def broken(field, value):
    values = {"gradient": RANDOM.normal(size=(2, 9)), "precision": np.ones((2, 9))}
    values[field][1, 3] = value
    return gradient_streams(values["gradient"], values["precision"], 0.0)


@pytest.mark.parametrize(
    ("streams", "complaint"),
    [
        (lambda: broken("gradient", np.nan), "finite observed wherever valid, got 1 of 18"),
        (lambda: broken("precision", np.inf), "finite precision wherever valid, got 1 of 18"),
        (lambda: broken("precision", -2.0), "needs precision >= 0, got -2"),
        (lambda: optimum_streams(np.ones((2, 9))), "a stream that moves, got 2: 2 constant"),
        (lambda: optimum_streams(WALKS[:0]), "at least one stream, got none"),
        (lambda: optimum_streams(WALKS[:, :1]), "at least 2 steps, got 1"),
        (lambda: optimum_streams(WALKS, valid=False), "4 streams of 30 steps, none valid"),
        (lambda: gradients(WALKS, WALKS**2), "does not contain its own gradient"),
    ],
)
def test_what_no_model_can_be_asked_about_is_refused(streams, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_streams(streams())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"valid": np.ones(3, bool)}, "needs valid of shape"),
        ({"layer": [0, 1]}, "one layer a row"),
        ({"layer": [0, 1, 2, 0], "layer_names": ("a", "b")}, "a name for every layer"),
    ],
)
def test_fields_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        optimum_streams(WALKS, **options)


def test_without_float64_nothing_is_checked(float32_only):
    with pytest.raises(ValueError, match="needs float64, which is switched off"):
        check_streams(optimum_streams(WALKS))


def test_gradients_that_pile_up_at_one_magnitude_look_clipped():
    values = RANDOM.normal(size=(4, 400))
    check_streams(gradients(values))  # warnings are errors here
    with pytest.warns(StreamWarning, match="4 of 4 streams pile up"):
        check_streams(gradients(np.clip(values, -1.5, 1.5)))


def test_a_run_that_clipped_is_warned_of_even_where_it_does_not_show():
    with pytest.warns(StreamWarning, match="the run clipped its gradients"):
        check_streams(gradients(), clipped=True)


def test_streams_are_a_pytree_whose_kind_is_static():
    streams = some_streams("optimum")
    again = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf, s))(streams)
    assert again.kind == "optimum" and again.layer_names == streams.layer_names
    assert len(jax.tree.leaves(streams)) == 5
