"""Numbers of one recipe where it fits its training data as well as another does."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from bayesfilt.records import Group


def at_equal_loss(
    wanted: Float[np.ndarray, " cells"],
    losses: Float[np.ndarray, " others"],
    numbers: Float[np.ndarray, "others kinds"],
) -> Float[np.ndarray, "cells kinds"]:
    """A recipe's numbers where its training loss is that of each cell of another recipe.

    Linear in the logarithm of the loss, between the settings of neighbouring losses.

    Args:
        wanted: training losses of the other recipe's cells.
        losses: of this recipe's settings.
        numbers: of this recipe's settings.

    Returns:
        One row a cell; NaN where its loss lies beyond those of this recipe.
    """
    order = np.argsort(losses)
    known = np.log(losses[order])
    return np.stack(
        [np.interp(np.log(wanted), known, each, np.nan, np.nan) for each in numbers[order].T],
        axis=-1,
    )


def matched(
    first: Group,
    second: Group,
    numbers: Callable[[Group], np.ndarray],
    draw: np.ndarray,
    which: slice = slice(None),
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers by kind of two recipes at equal training losses, means over settings of the first.

    Of means over the drawn seeds. Settings of the first beyond the second's training losses are
    left out, and `which` chooses among the others; NaN where there are none.

    Args:
        first: with `training_loss` of (settings, seeds).
        second: with the same seeds; its numbers are interpolated between its settings.
        numbers: group -> (settings, kinds, seeds).
        draw: places of seeds.
        which: of the first's settings that the second can match, in their order.
    """
    ours, theirs = (numbers(each)[..., draw].mean(axis=-1) for each in (first, second))
    losses = [each["training_loss"].values[:, draw].mean(axis=-1) for each in (first, second)]
    theirs = at_equal_loss(losses[0], losses[1], theirs)
    inside = np.flatnonzero(np.isfinite(theirs).all(axis=1))[which]
    if not inside.size:
        nothing = np.full(ours.shape[-1], np.nan)
        return nothing, nothing
    return ours[inside].mean(axis=0), theirs[inside].mean(axis=0)
