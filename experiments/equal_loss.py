"""Numbers of one recipe where it fits its training data as well as another does."""

import numpy as np
from jaxtyping import Float


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
