"""What an optimizer believes, read from its state: variance and effective learning rate."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax

from bayesfilt.custom_types import Params
from bayesfilt.optimizers.units import SumOverBatchState


@runtime_checkable
class HoldsVariance(Protocol):
    """A state that can say how sure the filter is of each weight's optimum."""

    def posterior_variance(self) -> Params:
        """Posterior variance of each weight's optimum; weight^2."""
        ...


def posterior_variance(opt_state: Any) -> Params:
    """Posterior variance of each weight's optimum, a tree like the weights; weight^2.

    Looks through `optax.chain`, `masked`, `inject_hyperparams` and any other nesting.
    Computed on demand: the states hold moments, not this. For a stack of states made under
    `jax.vmap`, map this function too.

    Raises:
        ValueError: No filter in the state, or more than one.
    """
    return _only(HoldsVariance, opt_state, "filter with a posterior variance").posterior_variance()


def effective_learning_rate(opt_state: Any) -> Params:
    """Each weight's factor on the mean-loss gradient: posterior variance times batch size.

    Raises:
        ValueError: No filter in the state, more than one, or no `sum_over_batch` (then the
            optimizer takes summed gradients and its learning rate is `posterior_variance`).
    """
    batch_size = _only(SumOverBatchState, opt_state, "sum_over_batch").batch_size
    variance = posterior_variance(opt_state)
    return jax.tree.map(lambda p: p * batch_size.astype(p.dtype), variance)


def find_state(kind: type, opt_state: Any) -> Any | None:
    """The state of this type inside an optimizer's nested state; None unless there is one."""
    found = list(_walk(kind, opt_state))
    return found[0] if len(found) == 1 else None


def _only(kind: type, opt_state: Any, described: str) -> Any:
    found = list(_walk(kind, opt_state))
    if len(found) != 1:
        raise ValueError(
            f"expected exactly one {described} in the optimizer state, found {len(found)}."
        )
    return found[0]


def _walk(kind: type, node: Any) -> Iterator[Any]:
    leaves = jax.tree.leaves(node, is_leaf=lambda x: isinstance(x, kind))
    return (leaf for leaf in leaves if isinstance(leaf, kind))
