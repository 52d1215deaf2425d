"""What an optimizer believes, read from its state: variance and effective learning rate."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from bayesfilt.custom_types import Params
from bayesfilt.optimizers.units import SumOverBatchState


@runtime_checkable
class HoldsVariance(Protocol):
    """A state that can say how sure the filter is of each weight's optimum."""

    def posterior_variance(self) -> Params:
        """Posterior variance of each weight's optimum; weight²."""
        ...


def posterior_variance(opt_state: Any) -> Params:
    """Posterior variance of each weight's optimum, a tree like the weights; weight².

    Looks through `optax.chain`, `masked`, `inject_hyperparams` and any other nesting. Where
    `optax.masked` keeps weights from the filter, the tree has optax's empty nodes.
    Computed on demand: the states hold moments, not this. For a stack of states made under
    `jax.vmap`, map this function too.

    Raises:
        ValueError: No filter in the state, more than one, or a stack of states.
    """
    state = filter_state(opt_state)
    if jnp.ndim(getattr(state, "step", 0)):
        raise ValueError(
            "posterior_variance needs the state of one run, got a stack of them: "
            "jax.vmap(posterior_variance)(states)."
        )
    return state.posterior_variance()


def effective_learning_rate(opt_state: Any) -> Params:
    """Each weight's factor on the mean-loss gradient: posterior variance times batch size.

    Raises:
        ValueError: No filter in the state, more than one, or no `sum_over_batch` (then the
            optimizer takes summed gradients and its learning rate is `posterior_variance`).
    """
    batch_size = only_state(SumOverBatchState, opt_state).batch_size
    variance = posterior_variance(opt_state)
    return jax.tree.map(lambda p: p * batch_size.astype(p.dtype), variance)


def filter_state(opt_state: Any) -> HoldsVariance:
    """The one filter's state inside an optimizer's nested state.

    Raises:
        ValueError: No filter in the state, or more than one.
    """
    return _only("filter", [node for node in _nodes(opt_state) if isinstance(node, HoldsVariance)])


def only_state[State](kind: type[State], opt_state: Any) -> State:
    """The one state of this type inside an optimizer's nested state.

    Raises:
        ValueError: None of them, or more than one.
    """
    return _only(kind.__name__, [node for node in _nodes(opt_state) if isinstance(node, kind)])


def _only[State](described: str, found: list[State]) -> State:
    if len(found) != 1:
        raise ValueError(
            f"an optimizer state with exactly one {described} is needed, found {len(found)}."
        )
    return found[0]


def _nodes(opt_state: Any) -> list[Any]:
    """Every NamedTuple in the state, itself included; what stands inside one is searched too."""
    found = []

    def visit(node) -> bool:
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            found.append(node)
        return False

    jax.tree.leaves(opt_state, is_leaf=visit)
    return found
