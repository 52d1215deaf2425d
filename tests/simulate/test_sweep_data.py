"""A sweep is data: axes are spelled out, equal sweeps are equal, bad ones are refused in a line."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesfilt.records import as_plain
from bayesfilt.simulate.sweep import Sweep, parse_axis, sweep_from, sweep_hash


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("1e-3", (1e-3,)),
        (" 1e-3 , 0.5 ", (1e-3, 0.5)),
        ("log:1e-4:1e-1:4", (1e-4, 1e-3, 1e-2, 1e-1)),
        ("lin:0:0.3:4", (0.0, 0.1, 0.2, 0.3)),
        ("0,log:0.01:1:3", (0.0, 0.01, 0.1, 1.0)),
        ("0.5,0.1,0.5", (0.5, 0.1)),
        ((0.5, 0.1, 0.5), (0.5, 0.1)),
        (0.5, (0.5,)),
    ],
)
def test_an_axis_text_is_spelled_out(spec, values):
    found = parse_axis("weight_decay", spec)
    assert found.values == values
    assert not found.drawn


@given(
    low=st.floats(1e-12, 1e3),
    factor=st.floats(1.5, 1e9),
    count=st.integers(2, 50),
    log=st.booleans(),
)
def test_a_range_has_both_ends_and_even_steps(low, factor, count, log):
    text = f"{'log' if log else 'lin'}:{low!r}:{low * factor!r}:{count}"
    values = np.array(parse_axis("learning_rate", text).values)
    assert len(values) == count
    np.testing.assert_allclose(values[[0, -1]], [low, low * factor], rtol=1e-11)
    steps = np.diff(np.log(values) if log else values)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-6)


def test_draws_are_reproducible_and_each_axis_has_its_own():
    first = parse_axis("learning_rate", "draw:1e-4:1e-1:2000", draw_seed=3)
    assert first.drawn
    assert first == parse_axis("learning_rate", "draw:1e-4:1e-1:2000", draw_seed=3)
    assert first != parse_axis("learning_rate", "draw:1e-4:1e-1:2000", draw_seed=4)
    other = parse_axis("weight_decay", "draw:1e-4:1e-1:2000", draw_seed=3)
    logs = np.log10([first.values, other.values])
    assert np.all((logs > -4) & (logs < -1))
    # Uniform on (-4, -1): deviation 3/sqrt(12); bounds of five standard errors of 2,000 draws.
    np.testing.assert_allclose(logs.mean(axis=1), -2.5, atol=5 * 0.866 / 2000**0.5)
    np.testing.assert_allclose(logs.std(axis=1), 0.866, atol=5 * 0.866 / (2 * 2000) ** 0.5)
    assert abs(np.corrcoef(logs)[0, 1]) < 5 / 2000**0.5


def test_draws_are_these_numbers_for_ever():
    first = parse_axis("learning_rate", "draw:1e-4:1e-1:3", draw_seed=0).values
    assert first == (0.000283238157858, 0.000386036324142, 0.000313311369231)


def test_a_sweep_survives_its_way_through_a_file():
    sweep = Sweep(
        optimizers=("adamw", "adabayes"),
        learning_rate="draw:1e-4:1e-1:5",
        b1=(0.5, 0.9),
        seeds=(4, 7),
        subset=300,
        label_noise=0.2,
    )
    again = sweep_from(json.loads(json.dumps(as_plain(sweep))))
    assert again == sweep
    assert sweep_hash(again) == sweep_hash(sweep)


def test_seeds_are_a_number_or_a_list_and_repeats_count_once():
    assert Sweep(seeds=3).seeds == (0, 1, 2)
    assert Sweep(seeds=(5, 3, 5)).seeds == (5, 3)
    assert Sweep(batch_sizes=(16, 16)).batch_sizes == (16,)
    assert Sweep(optimizers=("adamw", "adamw")).optimizers == ("adamw",)


def test_a_sweeps_hash_is_of_what_can_change_a_number():
    base = Sweep(learning_rate="1e-3,1e-2")
    same = [
        Sweep(learning_rate="log:0.001:0.01:2"),
        Sweep(learning_rate=(1e-3, 1e-2)),
        dataclasses.replace(base, skip_invalid=True),
        dataclasses.replace(base, seeds=(0, 1, 2)),
        dataclasses.replace(base, draw_seed=5),  # nothing is drawn
    ]
    assert {sweep_hash(sweep) for sweep in same} == {sweep_hash(base)}
    others = [
        dataclasses.replace(base, learning_rate="1e-2,1e-3"),  # another order of the grid
        dataclasses.replace(base, b2="0.99"),
        dataclasses.replace(base, seeds=4),
        dataclasses.replace(base, label_noise=0.1),
        dataclasses.replace(base, dtype="float64"),
        dataclasses.replace(base, full_trace=True),
        dataclasses.replace(base, record_points=10),
    ]
    assert len({sweep_hash(sweep) for sweep in [base, *others]}) == 1 + len(others)
    drawn = Sweep(learning_rate="draw:1e-4:1e-1:3")
    assert sweep_hash(drawn) != sweep_hash(dataclasses.replace(drawn, draw_seed=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": ""}, "values between the commas of learning_rate"),
        ({"learning_rate": "1e-3,,1"}, "values between the commas of learning_rate"),
        ({"learning_rate": ()}, "at least one value for learning_rate"),
        ({"learning_rate": "fast"}, "finite numbers for learning_rate, got 'fast'"),
        ({"learning_rate": "nan"}, "finite numbers for learning_rate"),
        ({"learning_rate": (1.0, float("inf"))}, "finite numbers for learning_rate"),
        ({"learning_rate": (None,)}, "real number for learning_rate"),
        ({"weight_decay": "lag:1:2:3"}, "weight_decay like .* got 'lag:1:2:3'"),
        ({"weight_decay": "log:1:2"}, "weight_decay like .* got 'log:1:2'"),
        ({"weight_decay": "log:1:2:1"}, "at least 2 points"),
        ({"weight_decay": "log:1:2:x"}, "at least 2 points"),
        ({"weight_decay": "draw:1:2:0"}, "at least 1 points"),
        ({"weight_decay": "log:0:2:3"}, "0 < low <= high"),
        ({"weight_decay": "lin:3:2:3"}, "low <= high"),
        ({"eps": "1,draw:1:2:3"}, "draws of eps alone"),
        ({"b1": "draw:0.1:0.9:3", "b2": "draw:0.1:0.9:4"}, "got 3 of b1, 4 of b2"),
        ({"seeds": 0}, "number of seeds >= 1"),
        ({"seeds": ()}, "at least one value for seeds"),
        ({"seeds": (-1,)}, "seeds >= 0"),
        ({"seeds": (2**32,)}, "below 2..32"),
        ({"optimizers": ()}, "at least one value for optimizers"),
        ({"optimizers": ("adamv",)}, "Did you mean 'adam"),
        ({"tasks": "digits-mlq"}, "Did you mean 'digits-mlp'"),
        ({"schedules": ("cosin",)}, "Did you mean 'cosine'"),
        ({"batch_sizes": (0,)}, "batch_sizes >= 1"),
        ({"num_steps": (2.5,)}, "whole num_steps"),
        ({"dtype": "float16"}, "float32, float64"),
        ({"label_noise": 1.0}, "label_noise < 1"),
        ({"label_noise": [0.1, 0.2]}, "one label_noise for all runs"),
        ({"subset": 0}, "subset >= 1"),
        ({"subset": [100, 200]}, "one subset for all runs"),
        ({"draw_seed": [1]}, "one draw_seed for all runs"),
        ({"full_trace": "no"}, "true or false for full_trace"),
        ({"record_points": 0}, "record_points >= 1"),
        ({"draw_seed": -1}, "draw_seed >= 0"),
        ({"learning_rates": "1e-3"}, "Did you mean 'learning_rate'"),
    ],
)
def test_a_bad_sweep_is_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as refused:
        sweep_from(settings)
    assert "\n" not in str(refused.value)


def test_one_optimizer_in_several_spellings_is_one():
    sweep = Sweep(optimizers=("power_adam:power=0.50", "power_adam:power=.5", "power_adam"))
    assert sweep.optimizers == ("power_adam:power=0.5", "power_adam")


def test_an_axis_that_an_optimizer_overrides_is_refused():
    with pytest.raises(ValueError, match="7 values of learning_rate, and 'sgd:learning_rate=0.1'"):
        Sweep(optimizers=("adamw", "sgd:learning_rate=0.1"))
    Sweep(optimizers=("adamw", "sgd:learning_rate=0.1"), learning_rate=(1e-3,))
