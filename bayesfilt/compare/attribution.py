r"""What a gap between two updates is owed to: decay, variance, momentum or epsilon.

Both updates are composed of the same four parts (`optimizers.parts`). Swapping one part at a
time from the leader's to the follower's leads from one update to the other, and each swap moves
it a little; how far depends on what was swapped before. The Shapley value averages over all 24
orders, which needs the 16 updates with some parts swapped and the others not, and adds up to
the gap exactly.
"""

import itertools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from bayesfilt.compare.layers import flat, norm, scaled
from bayesfilt.custom_types import Params
from bayesfilt.optimizers.parts import PartsOf, UpdateParts, compose
from bayesfilt.simulate import ShadowView
from bayesfilt.tasks import Task

PARTS = ("decay", "variance", "momentum", "eps")

# Row by row: which parts are the follower's.
_SWAPPED = np.array(list(itertools.product([False, True], repeat=len(PARTS))))
# A gap within this many roundings of the leader's update is rounding; it has no owner.
_ROUNDINGS = 64


def _swaps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(parts, 8) each: subsets without a part, the same with it, and the share of all orders.

    The share is that of the orders in which exactly these others are swapped before the part.
    """
    count = len(PARTS)
    without = np.array([np.flatnonzero(~_SWAPPED[:, part]) for part in range(count)])
    # In the order of `itertools.product` the last part is the lowest binary digit.
    with_it = without + 2 ** (count - 1 - np.arange(count))[:, None]
    before = _SWAPPED[without].sum(axis=-1)
    orders = [math.factorial(n) * math.factorial(count - 1 - n) for n in range(count)]
    # Of 32 bits: 64 are refused by an index in a process that has had x64 on and turned it off.
    indices = without.astype(np.int32), with_it.astype(np.int32)
    return *indices, np.array(orders)[before] / math.factorial(count)


_WITHOUT, _WITH, _SHARE_OF_ORDERS = _swaps()


def shares(leader: UpdateParts, follower: UpdateParts, params: Params) -> Float[Array, " parts"]:
    r"""Share of the gap between two updates that each of `PARTS` owns [CMP-1].

    With $\varphi_i$ the mean move on swapping part i in, over all orders, and d the gap, the
    follower's update minus the leader's, the share is $\langle\varphi_i, d\rangle / |d|^2$. The
    shares add up to 1; one that narrows the gap is negative.

    Args:
        leader: Parts of the update that is the reference.
        follower: Parts of the update that is explained.
        params: The weights that both shrink.

    Returns:
        One number for each of `PARTS`, pooled over all weights; NaN where the two composed
        updates are equal, to rounding.
    """
    # As vectors: a tree of many leaves would be compiled leaf by leaf.
    leader, follower, weights = flat_parts(leader), flat_parts(follower), flat(params)
    start = compose(leader, weights)
    gap = compose(follower, weights) - start
    unit_gap, largest = scaled(gap)
    scale = jnp.where(largest == 0, 1, largest)

    def progress(swapped: Bool[Array, " parts"]) -> Float[Array, ""]:
        """How far towards the follower the update with these parts swapped is."""
        moved = compose(_exchange(swapped, leader, follower), weights) - start
        return jnp.sum(moved / scale * unit_gap)

    # One after the other: all 16 at once would need the memory of 16 updates.
    reached = jax.lax.map(progress, jnp.asarray(_SWAPPED))
    moves = jnp.asarray(_SHARE_OF_ORDERS, gap.dtype) * (reached[_WITH] - reached[_WITHOUT])
    is_gap = norm(gap) > _ROUNDINGS * jnp.finfo(gap.dtype).eps * norm(start)
    return jnp.where(is_gap, moves.sum(axis=-1) / (reached[-1] - reached[0]), jnp.nan)


def gap_shares(
    leader: PartsOf | None, followers: Mapping[str, PartsOf | None]
) -> Callable[[Task, ShadowView], dict[str, Float[Array, " parts"]]]:
    """Measure of a shadow: each follower's `shares`.

    Args:
        leader: How to take the leader's update apart (`named_optimizer(...).parts`); None: not
            available, and then nobody's shares are.
        followers: The same for every follower.

    Returns:
        A measure; NaN for a follower whose shares are not available.
    """

    def measure(task: Task, view: ShadowView) -> dict[str, Float[Array, " parts"]]:
        del task
        missing = jnp.full(len(PARTS), jnp.nan)
        found = dict.fromkeys(view.followers, missing)
        told = {
            name: flat_parts(parts_of(view.followers[name].opt_state))
            for name, parts_of in followers.items()
            if parts_of is not None
        }
        if leader is None or not told:
            return found
        own, weights = flat_parts(leader(view.leader.opt_state)), flat(view.params)
        # All followers in one computation: it compiles once.
        stacked = jax.tree.map(lambda *each: jnp.stack(each), *told.values())
        shared = jax.vmap(lambda parts: shares(own, parts, weights))(stacked)
        return found | {name: shared[index] for index, name in enumerate(told)}

    return measure


def flat_parts(parts: UpdateParts) -> UpdateParts:
    """The same parts with every tree as one vector, at least float32."""
    return UpdateParts(
        momentum=flat(parts.momentum),
        variance=flat(parts.variance),
        prior_precision=flat(parts.prior_precision),
        shrink=parts.shrink,
        step_shrink=parts.step_shrink,
    )


def _exchange(
    swapped: Bool[Array, " parts"], leader: UpdateParts, follower: UpdateParts
) -> UpdateParts:
    """The leader's parts with those that are `swapped` taken from the follower."""
    decay, variance, momentum, eps = swapped

    def choose(is_swapped, before, after):
        return jnp.where(is_swapped, after, before)

    return UpdateParts(
        momentum=choose(momentum, leader.momentum, follower.momentum),
        variance=choose(variance, leader.variance, follower.variance),
        prior_precision=choose(eps, leader.prior_precision, follower.prior_precision),
        shrink=choose(decay, leader.shrink, follower.shrink),
        step_shrink=choose(decay, leader.step_shrink, follower.step_shrink),
    )
