"""The quiet limit: every variance the prior's, one learning rate for all weights."""

import optax

from bayesfilt.checks import concrete_number, require_positive
from bayesfilt.custom_types import Scalar
from bayesfilt.optimizers.rivals import sgdw as sgdw_of
from bayesfilt.optimizers.zoo.recipe import NamedOptimizer, stepping
from bayesfilt.optimizers.zoo.setting import Setting


def sgd(setting: Setting, *, learning_rate: Scalar | None) -> NamedOptimizer:
    """SGD, without momentum and decay."""
    rate = quiet_rate("sgd", setting, learning_rate)
    return stepping(optax.sgd(setting.scheduled(rate)), 0.0)


def sgd_l2(setting: Setting, *, learning_rate: Scalar | None) -> NamedOptimizer:
    """SGD with the setting's weight decay as the coefficient of an L2 penalty."""
    rate = quiet_rate("sgd_l2", setting, learning_rate)
    return _penalised(setting, optax.sgd(setting.scheduled(rate)))


def momentum(setting: Setting, *, learning_rate: Scalar | None) -> NamedOptimizer:
    """Heavy ball on the sum of past gradients, as torch and optax have it."""
    rate = _rate_on_the_sum("momentum", setting, learning_rate)
    return stepping(optax.sgd(setting.scheduled(rate), momentum=setting.b1), 0.0)


def momentum_l2(setting: Setting, *, learning_rate: Scalar | None) -> NamedOptimizer:
    """Heavy ball with an L2 penalty inside the gradient, as torch has it."""
    rate = _rate_on_the_sum("momentum_l2", setting, learning_rate)
    return _penalised(setting, optax.sgd(setting.scheduled(rate), momentum=setting.b1))


def nesterov(setting: Setting, *, learning_rate: Scalar | None) -> NamedOptimizer:
    """Heavy ball with a look-ahead, as torch and optax have it."""
    rate = _rate_on_the_sum("nesterov", setting, learning_rate)
    return stepping(optax.sgd(setting.scheduled(rate), momentum=setting.b1, nesterov=True), 0.0)


def sgdw(setting: Setting, *, learning_rate: Scalar | None) -> NamedOptimizer:
    """SGD with momentum and decoupled decay, as Loshchilov and Hutter write it."""
    rate = _rate_on_the_sum("sgdw", setting, learning_rate)
    made = sgdw_of(
        setting.scheduled(rate), momentum=setting.b1, weight_decay=setting.shrink("lr_scaled")
    )
    return NamedOptimizer(optimizer=made, parts=None)


def quiet_rate(owner: str, setting: Setting, learning_rate: Scalar | None) -> Scalar:
    """The dictionary's learning rate for mean-loss gradients, sigma^2 batch_size, if none is given.

    Raises:
        ValueError: No rate given and no decay to tell the prior variance.
    """
    if learning_rate is not None:
        require_positive(owner, "learning_rate", learning_rate)
        return learning_rate
    if concrete_number(setting.weight_decay) == 0:
        raise ValueError(
            f"{owner} needs weight_decay > 0, got 0: its learning rate is the prior variance times"
            f" the batch size. Or give it one of its own, as {owner}:learning_rate=0.1."
        )
    return setting.transition.stationary_variance * setting.batch_size


def _penalised(setting: Setting, optimizer: optax.GradientTransformation) -> NamedOptimizer:
    """Add the gradient of weight_decay |w|^2/2 to what the optimizer sees: torch's weight_decay."""
    return stepping(optax.chain(optax.add_decayed_weights(setting.weight_decay), optimizer), 0.0)


def _rate_on_the_sum(owner: str, setting: Setting, learning_rate: Scalar | None) -> Scalar:
    """The sum of past gradients is 1/(1 - b1) times their mean."""
    rate = quiet_rate(owner, setting, learning_rate)
    return rate * (1 - setting.b1) if learning_rate is None else rate
