"""Names of the zoo: where their numbers come from, and that each is the optimizer it is called."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayesfilt
from bayesfilt.optimizers import Setting, named_optimizer, scale_by_adagrad, scale_by_amsgrad

PARAMS = {"w": jnp.array([1.0, -2.0, 0.5])}
SIGMA2 = 0.01 / (2 * 0.1)
STREAM = np.random.default_rng(3).normal(0.2, [0.01, 0.1, 3.0], (8, 3))


def setting(**changes):
    numbers = {"learning_rate": 0.01, "weight_decay": 0.1, "batch_size": 8, "num_steps": 20}
    return Setting(**{**numbers, **changes})


def replayed(optimizer):
    params, state, found = PARAMS, optimizer.init(PARAMS), []
    for gradient in STREAM:
        updates, state = optimizer.update({"w": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        found.append(updates["w"])
    return np.array(found)


def quiet(momentum=None, **options):
    rate = SIGMA2 * 8 * (1 if momentum is None else 1 - momentum)
    return optax.sgd(rate, momentum=momentum, **options)


# optax's own, with what the dictionary makes of the setting written out.
BY_HAND = {
    "sgd": quiet(),
    "momentum": quiet(0.9),
    "nesterov": quiet(0.9, nesterov=True),
    "sgd_l2": optax.chain(optax.add_decayed_weights(0.1), quiet()),
    "momentum_l2": optax.chain(optax.add_decayed_weights(0.1), quiet(0.9)),
    "sgd:learning_rate=0.3": optax.sgd(0.3),
    "momentum:learning_rate=0.3": optax.sgd(0.3, momentum=0.9),
    "rmsprop": optax.rmsprop(0.01, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    "rmsprop:b2=0.5": optax.rmsprop(0.01, decay=0.5, eps=1e-8, eps_in_sqrt=False),
    "adam": optax.adam(0.01),
    "adam_l2": optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.01)),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
    "adamw_paper": optax.adamw(0.01, weight_decay=0.1),
    "nadam": optax.nadam(0.01),
    "nadamw": optax.nadamw(0.01, weight_decay=0.1),
    "power_adam": optax.adamw(0.01, weight_decay=0.1),
    "power_adam:power=0": optax.chain(
        optax.ema(0.9), optax.scale(-0.01), optax.add_decayed_weights(-1e-3)
    ),
    "amsgrad": optax.chain(scale_by_amsgrad(), optax.scale(-0.01)),
    "amsgrad_optax": optax.amsgrad(0.01),
    "adagrad": optax.chain(scale_by_adagrad(), optax.scale(-0.01)),
    "adagrad:learning_rate=0.5,eps=0.1": optax.chain(scale_by_adagrad(eps=0.1), optax.scale(-0.5)),
    "adagrad_optax": optax.adagrad(0.01),
    "brmsprop": bayesfilt.adabayes(0.01, SIGMA2, batch_size=8, b1=0.0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_name_is_what_optax_makes_of_its_formula(name):
    found = replayed(named_optimizer(name, setting()).optimizer)
    np.testing.assert_allclose(found, replayed(BY_HAND[name]), rtol=1e-11, atol=1e-17)


def test_nesterov_is_a_velocity_filter_of_constant_gains():
    """Position gain lr, velocity gain b1 lr, the weight held being the predicted position."""
    rate, kept = 0.05, 0.9
    position, velocity = np.array(PARAMS["w"]), np.zeros(3)
    wanted = []
    for gradient in STREAM:
        position_after, velocity_after = (
            position - rate * gradient,
            velocity - kept * rate * gradient,
        )
        wanted.append(position_after + velocity_after - position)
        position, velocity = position_after + velocity_after, kept * velocity_after
    found = replayed(named_optimizer(f"nesterov:learning_rate={rate}", setting()).optimizer)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_sgdw_is_the_quiet_limit_with_the_transition_s_shrink():
    rate = SIGMA2 * 8 * 0.1
    buffer, params, wanted = np.zeros(3), np.array(PARAMS["w"]), []
    for gradient in STREAM:
        buffer = 0.9 * buffer + rate * gradient
        wanted.append(-buffer - 1e-3 * params)
        params = params + wanted[-1]
    found = replayed(named_optimizer("sgdw", setting()).optimizer)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_badam_s_memory_of_the_velocity_is_b1():
    made = bayesfilt.optimizers.badam(0.01, SIGMA2, batch_size=8, velocity_shrink=0.3)
    named = named_optimizer("badam", setting(b1=0.7)).optimizer
    np.testing.assert_allclose(replayed(named), replayed(made), rtol=1e-12)
    given = named_optimizer("badam:velocity_shrink=0.3", setting()).optimizer
    np.testing.assert_array_equal(replayed(given), replayed(made))


def test_a_penalty_is_decoupled_decay_until_there_is_momentum():
    rate, l2 = 0.3, 0.1
    last, buffer, params, plain, heavy = np.zeros(3), np.zeros(3), np.array(PARAMS["w"]), [], []
    for gradient in STREAM:  # torch.optim.SGD(weight_decay=l2), written out
        plain.append(-rate * gradient - rate * l2 * (params + last))
        last = last + plain[-1]
    for gradient in STREAM:
        buffer = 0.9 * buffer + gradient + l2 * params
        heavy.append(-rate * buffer)
        params = params + heavy[-1]
    for name, wanted in (("sgd_l2", plain), ("momentum_l2", heavy)):
        found = replayed(named_optimizer(f"{name}:learning_rate={rate}", setting()).optimizer)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


QUIET = ["sgd", "sgd_l2", "momentum", "momentum_l2", "nesterov", "sgdw"]


@pytest.mark.parametrize("name", QUIET)
def test_without_a_prior_gradient_descent_needs_a_rate_of_its_own(name):
    with pytest.raises(ValueError, match=f"{name} needs weight_decay > 0.*{name}:learning_rate="):
        named_optimizer(name, setting(weight_decay=0.0))
    given = named_optimizer(f"{name}:learning_rate=0.1", setting(weight_decay=0.0))
    assert np.all(np.isfinite(replayed(given.optimizer)))


def test_a_number_of_its_own_may_be_traced():
    def first(power):
        optimizer = named_optimizer("power_adam", setting(), power=power).optimizer
        gradient = {"w": jnp.asarray(STREAM[0])}
        return optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)[0]["w"]

    together = jax.jit(jax.vmap(first))(jnp.array([0.25, 0.75]))
    np.testing.assert_allclose(together[1], first(0.75), rtol=1e-12)


def test_the_decay_of_power_adam_does_not_follow_a_rate_of_its_own():
    optimizer = named_optimizer("power_adam:power=1,learning_rate=1e-4", setting()).optimizer
    zero = {"w": jnp.zeros(3)}
    updates, _ = optimizer.update(zero, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], -1e-3 * PARAMS["w"], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("adamx", {}, "Did you mean 'adam"),
        ("adamw:power=1", {}, "adamw has no numbers of its own, got 'power'"),
        ("power_adam:powr=1", {}, "knows numbers power, .*got 'powr'. Did you mean 'power'"),
        ("power_adam:power=x", {}, "name:number=value.*got 'power_adam:power=x'"),
        ("power_adam:", {}, "name:number=value"),
        ("power_adam:power=1,power=2", {}, "has power twice"),
        ("power_adam:power=1", {"power": 2.0}, "has power already"),
        ("power_adam:power=-1", {}, "power >= 0, got power=-1"),
        ("sgd:learning_rate=0", {}, "learning_rate > 0"),
        ("adagrad:learning_rate=-1", {}, "learning_rate > 0"),
        ("adamw_paper:weight_decay=1", {}, "0 <= weight_decay < 1"),
        ("rmsprop:b2=1", {}, "0 <= b2 < 1"),
        ("kalman_kronecker:max_dimension=0", {}, "max_dimension >= 1"),
    ],
)
def test_a_bad_name_or_number_is_one_line(name, numbers, message):
    with pytest.raises(ValueError, match=message) as caught:
        named_optimizer(name, setting(), **numbers)
    assert "\n" not in str(caught.value)
