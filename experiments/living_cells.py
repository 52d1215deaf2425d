"""Which cells of a grid a network survives: decay that is too strong makes it say one thing."""

import numpy as np
from jaxtyping import Bool

from bayesfilt.records import Group, Variable

DEAD = 0.75  # test error; a guess among ten classes errs by 0.9


def living(group: Group, search: Group) -> Group:
    """The settings of `group` at whose rate and shrink no kind of step has killed the network.

    Of all kinds or of none, so that kinds are compared in the same cells.

    Args:
        group: `rate` and `shrink` of settings, which are the first dimension of what is chosen.
        search: `rate`, `decay` and errors of cells, of every kind.
    """
    error = 0.5 * (search["even"].values + search["odd"].values)
    dead = np.median(error, axis=1) > DEAD
    killed = search["rate"].values[dead], (search["rate"].values * search["decay"].values)[dead]
    lives = ~_among((group["rate"].values, group["shrink"].values), killed)
    return {
        name: Variable(dims=each.dims, values=each.values[lives], attributes=each.attributes)
        if each.dims[0] == "setting"
        else each
        for name, each in group.items()
    }


def _among(
    these: tuple[np.ndarray, np.ndarray], those: tuple[np.ndarray, np.ndarray]
) -> Bool[np.ndarray, " these"]:
    """Whether each pair of numbers is among other pairs."""
    close = [
        np.isclose(ours[:, None], theirs, rtol=1e-4)
        for ours, theirs in zip(these, those, strict=True)
    ]
    return np.any(close[0] & close[1], axis=1)
