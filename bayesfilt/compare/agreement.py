"""How far two updates agree: direction, size, error and signs, layer by layer.

Made for the shadow, where both optimizers saw the same weights and gradients, so that any
disagreement is the formulas' own. As a measure of a shadow:

    shadow(key, task, leader, followers, 500, measures={"agreement": update_agreement})
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesfilt.compare.layers import ALL, Layers, flat, layers_of, scaled, sizes, sums_by_layer
from bayesfilt.simulate import ShadowView
from bayesfilt.tasks import Task


class Agreement(NamedTuple):
    """What a follower's update has in common with the leader's; pure numbers.

    Two updates that are both zero agree. Where only one is, there is no direction to compare:
    the cosine is NaN, the other numbers are what they tend to (an error of 1 or inf, a log
    ratio of -inf or inf).
    """

    cosine: Float[Array, "*layers"]  # of the angle between them, 1 if parallel
    relative_error: Float[Array, "*layers"]  # |follower - leader| / |leader|
    log_size_ratio: Float[Array, "*layers"]  # natural log of |follower| / |leader|
    sign_agreement: Float[Array, "*layers"]  # fraction of weights pushed the same way


def compare_updates(
    leader: Float[Array, " weights"], follower: Float[Array, " weights"]
) -> Agreement:
    """Compare two vectors of updates, the leader's being the reference; four numbers."""
    whole = Layers(names=(ALL,), bounds=((0, leader.size),))
    return jax.tree.map(lambda values: values[0], layer_agreement(whole, leader, follower))


def layer_agreement(
    layers: Layers, leader: Float[Array, " weights"], follower: Float[Array, " weights"]
) -> Agreement:
    """Compare two flat updates layer by layer; every field has an axis of layers.

    Squares are taken relative to the largest entry, so that updates of any size compare alike.
    Equal updates give exactly 1, 0, 0, 1.
    """
    led, leader_largest = scaled(leader)
    followed, follower_largest = scaled(follower)
    error, error_largest = scaled(follower - leader)
    finite = jnp.isfinite(leader) & jnp.isfinite(follower)
    same_sign = jnp.where(finite, jnp.sign(leader) == jnp.sign(follower), jnp.nan)
    terms = jnp.stack([led * led, followed * followed, led * followed, error * error, same_sign])
    led2, followed2, product, error2, same = sums_by_layer(layers, terms)
    both_rest = (led2 == 0) & (followed2 == 0)
    leader_size = leader_largest * jnp.sqrt(led2)
    follower_size = follower_largest * jnp.sqrt(followed2)
    relative_error = error_largest * jnp.sqrt(error2) / leader_size
    return Agreement(
        # Of equal vectors all three sums are one number, and the quotients are 1.
        cosine=jnp.where(both_rest, 1, product / led2 / jnp.sqrt(followed2 / led2)),
        relative_error=jnp.where(both_rest, 0, relative_error),
        log_size_ratio=jnp.where(both_rest, 0, jnp.log(follower_size) - jnp.log(leader_size)),
        sign_agreement=same / sizes(layers).astype(same.dtype),
    )


def update_agreement(task: Task, view: ShadowView) -> dict[str, Agreement]:
    """Measure of a shadow: every follower's `Agreement` over `layers_of(params).names`."""
    del task
    layers, leader = layers_of(view.params), flat(view.leader.updates)
    updates = [flat(proposal.updates) for proposal in view.followers.values()]
    # All followers in one computation: it compiles once.
    compare = jax.vmap(lambda own: layer_agreement(layers, leader, own))
    found = compare(jnp.stack(updates))
    return {
        name: jax.tree.map(lambda values, index=index: values[index], found)
        for index, name in enumerate(view.followers)
    }
