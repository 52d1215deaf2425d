"""From a record of a run to streams: which curvature, which steps count, which rows are kept."""

import jax.numpy as jnp
import numpy as np
import pytest

from bayesfilt.infer.recorded_streams import (
    fingerprint,
    of_layers,
    ready_streams,
    recorded_streams,
)
from tests.compare.recordings import streams


def test_optima_become_rows_and_invalid_ones_stay_masked():
    record = streams()
    optimum = record.optimum.copy()
    optimum[3, 1] = np.nan
    found = recorded_streams(streams(optimum=optimum, optimum_valid=np.isfinite(optimum)))
    assert found.streams.kind == "optimum"
    assert found.streams.layer_names == ("dense_0", "dense_1")
    np.testing.assert_array_equal(found.streams.observed[2], optimum[:, 2])
    expected = np.ones((3, 12), bool)
    expected[1, 3] = False
    np.testing.assert_array_equal(found.streams.valid, expected)
    assert found.weight == ("0", "10", "20")
    assert (found.learning_rate, found.weight_decay) == (1e-3, 0.1)


def test_a_gradient_s_precision_is_the_gauss_newton_curvature_where_that_was_recorded():
    exact = np.full((12, 3), 2.0)
    exact[0, 0] = -1.0
    plain = recorded_streams(streams(curvature=exact), "gradient").streams
    np.testing.assert_array_equal(plain.precision[1], 2.0)
    assert not plain.valid[0, 0] and plain.valid.sum() == 35
    better = recorded_streams(streams(curvature=exact, ggn=exact**2), "gradient").streams
    np.testing.assert_array_equal(better.precision[1], 4.0)
    assert better.valid.all()
    np.testing.assert_array_equal(better.taken_at, streams().weight.T)


@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({"learning_rate": 1e-3, "weight_decay": 0.1, "decay": "lr_scaled"}, 0.1),
        ({"learning_rate": 1e-3, "weight_decay": 0.1, "decay": "none"}, 0.0),
        ({"learning_rate": 1e-3}, None),
        ({"learning_rate": 1e-3, "weight_decay": float("nan")}, None),
        ({"learning_rate": 1e-3, "weight_decay": 0.1, "decay": "l2"}, 0.0),
        ({}, None),
        ({"weight_decay": "0.1"}, None),
    ],
)
def test_only_a_decay_of_the_weights_own_counts_as_set(settings, decay):
    assert recorded_streams(streams(settings=settings)).weight_decay == decay


def test_rows_that_say_nothing_before_the_held_out_steps_are_left_out_with_their_names():
    valid = np.ones((12, 3), bool)
    valid[:7, 1] = False  # the only weight of dense_1
    usable, notes = ready_streams(recorded_streams(streams(optimum_valid=valid)), 8)
    assert usable.weight == ("0", "20")
    assert usable.streams.layer_names == ("dense_0",)
    np.testing.assert_array_equal(usable.streams.layer, [0, 0])
    assert usable.streams.observed.dtype == jnp.float64
    assert notes == ["Left out, nothing to see in the first 8 steps: 1 more."]


def test_a_layer_is_picked_by_name():
    found = of_layers(recorded_streams(streams()), ("dense_1",))
    assert found.streams.layer_names == ("dense_1",)
    assert found.weight == ("10",)


def test_a_fingerprint_changes_with_any_number():
    one = recorded_streams(streams()).streams
    assert fingerprint(one) == fingerprint(recorded_streams(streams()).streams)
    optimum = streams().optimum.copy()
    optimum[5, 2] = np.nextafter(optimum[5, 2], 9)
    assert fingerprint(one) != fingerprint(recorded_streams(streams(optimum=optimum)).streams)
