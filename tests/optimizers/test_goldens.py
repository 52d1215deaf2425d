"""Reference trajectories: torch's optimizers and the released AdaBayes, step for step.

The gradients are given and do not depend on the weights, so a correct optimizer reproduces
every recorded weight. How they were made stands in tests/goldens/README.md.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesfilt.optimizers import (
    adabayes,
    adabayes_fixed_point,
    adagrad,
    adam_l2,
    adamc,
    amsgrad,
    compensated,
    power_adam,
    scale_by_adagrad,
    scale_by_amsgrad,
    sgdw,
)

FILES = ("optimizer_streams.npz", "optimizer_streams_b.npz")
TORCH_TOLERANCE, AUTHOR_TOLERANCE = 1e-12, 1e-10  # of the largest weight


def load(name):
    with np.load(Path(__file__).parent.parent / "goldens" / name) as file:
        return {key: file[key] for key in file.files}


def factor(spec):
    """The schedule's factor on the learning rate, by step."""
    if spec["schedule"] == "constant":
        return lambda count: jnp.ones(())
    return lambda count: 0.5 * (1 + jnp.cos(jnp.pi * count / 400))


def sgd(spec):
    return optax.chain(
        optax.add_decayed_weights(spec.get("weight_decay", 0.0)),
        optax.sgd(spec["lr"], spec.get("momentum"), nesterov=spec.get("nesterov", False)),
    )


def adam(spec):
    (b1, b2), s = spec["betas"], factor(spec)
    memory = {"b1": b1, "b2": b2, "eps": spec["eps"]}
    if spec.get("amsgrad"):
        return optax.chain(
            scale_by_amsgrad(**memory),
            optax.add_decayed_weights(spec["weight_decay"]),
            optax.scale_by_learning_rate(spec["lr"]),
        )
    decay = spec.get("weight_decay", 0.0)
    if spec["optimizer"].endswith("AdamW"):
        return optax.adamw(lambda t: spec["lr"] * s(t), weight_decay=decay, **memory)
    return optax.chain(optax.add_decayed_weights(decay), optax.adam(spec["lr"], **memory))


def author(spec):
    """A schedule scales both rates; the recursive one scales its decay too, the other does not."""
    s, fixed_point = factor(spec), spec["optimizer"].endswith("FP")
    drift = spec["weight_drift"]
    settings = {
        "batch_size": spec["batch_size"],
        "b1": spec["betas"][0],
        "decay_order": "after",
        "weight_decay": drift if fixed_point else lambda t: drift * s(t),
    }
    eta = lambda t: spec["lr"] * s(t)  # noqa: E731
    sigma2 = lambda t: spec["lr_sgd"] * s(t) / spec["batch_size"]  # noqa: E731
    if fixed_point:
        return adabayes_fixed_point(
            eta, sigma2, b2=spec["betas"][1], eps_root=spec["eps"], **settings
        )
    return adabayes(eta, sigma2, **settings)


def built(spec):
    kind = spec["optimizer"].rsplit(".", 1)[-1]
    if kind == "SGD":
        return sgd(spec)
    if kind in ("Adam", "AdamW"):
        return adam(spec)
    if kind == "RMSprop":
        return optax.rmsprop(spec["lr"], decay=spec["alpha"], eps=spec["eps"], eps_in_sqrt=False)
    if kind == "Adagrad":
        return optax.chain(
            scale_by_adagrad(eps=spec["eps"]), optax.scale_by_learning_rate(spec["lr"])
        )
    return author(spec)


def recipe(name, spec):
    """The same by a named recipe of ours."""
    rate, decay = spec["lr"], spec.get("weight_decay", 0.0)
    memory = {"eps": spec.get("eps")}
    if "betas" in spec:
        memory["b1"], memory["b2"] = spec["betas"]
    scheduled = lambda t: rate * factor(spec)(t)  # noqa: E731
    made = {
        "sgd": lambda: sgdw(rate, momentum=0.0),
        "adagrad": lambda: adagrad(rate, **memory),
        "adam": lambda: power_adam(rate, **memory),
        "adam_l2": lambda: adam_l2(rate, l2=decay, **memory),
        "adamw": lambda: adamc(rate, weight_decay=decay, **memory),
        "adamw_cosine": lambda: power_adam(scheduled, weight_decay=decay, **memory),
        "amsgrad": lambda: amsgrad(rate, weight_decay=decay, **memory),
    }
    return made[name]()


RECIPES = ("sgd", "adagrad", "adam", "adam_l2", "adamw", "adamw_cosine", "amsgrad")


def cases():
    for file in FILES:
        yield from ((file, name) for name in json.loads(str(load(file)["specs"])))


def replayed(optimizer, data):
    """Weights after every step of the recorded gradients."""

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    first = jnp.asarray(data["initial_weights"])
    run = jax.jit(lambda g: jax.lax.scan(step, (first, optimizer.init(first)), g)[1])
    return np.asarray(run(jnp.asarray(data["gradients"])))


@pytest.mark.equation("OPT-2", "OPT-3", "OPT-5", "AW-1", "AW-2")
@pytest.mark.parametrize(("file", "name"), list(cases()))
def test_a_reference_trajectory_is_reproduced(file, name):
    data = load(file)
    spec = json.loads(str(data["specs"]))[name]
    wanted = data[f"weights__{name}"]
    came = replayed(built(spec), data)[data["steps"] - 1]
    tolerance = AUTHOR_TOLERANCE if spec["optimizer"].startswith("author") else TORCH_TOLERANCE
    assert np.max(np.abs(came - wanted)) <= tolerance * np.max(np.abs(wanted))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("file", FILES)
def test_a_reference_trajectory_is_reproduced_by_our_recipe_too(file, name):
    data = load(file)
    wanted = data[f"weights__{name}"]
    made = recipe(name, json.loads(str(data["specs"]))[name])
    for optimizer in (made, compensated(made)):
        came = replayed(optimizer, data)[data["steps"] - 1]
        assert np.max(np.abs(came - wanted)) <= TORCH_TOLERANCE * np.max(np.abs(wanted))


def test_every_reference_moves_the_weights():
    for file in FILES:
        data = load(file)
        for name in json.loads(str(data["specs"])):
            moved = np.abs(data[f"weights__{name}"][-1] - data["initial_weights"])
            assert moved.max() > 1e-3
