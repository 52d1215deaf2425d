"""What all gradients of a stream, later ones too, say about the optimum at each step.

The filter's belief at a step knows the gradients up to it. The smoother's knows them all: the
filter runs forwards, then one walk backwards (`look_back`) hands on what came later. Sampling does
the same walk with drawn optima in place of beliefs, and so draws whole paths of the optimum, with
their covariance in time.
"""

from typing import NamedTuple

import jax
from jaxtyping import PRNGKeyArray, PyTree

from bayesfilt.filters import velocity_look_back as velocity_look_back  # joins look_back
from bayesfilt.filters.belief import AnyBelief, Filter
from bayesfilt.filters.look_back import PosteriorPath, draw_latent, look_back
from bayesfilt.filters.sequence import GradientStream, filter_stream


class SmoothedStream(NamedTuple):
    """What a stream says about each step, in the light of all of it.

    `belief` is about the optimum that each gradient looked at, given all gradients, with a leading
    axis of steps. `lag_covariance` is the covariance of that optimum with the one a step later
    given all gradients (the last one's with the optimum after the end): a tree like the weights,
    or for the full filter [steps, n, n] with the earlier optimum in the rows. `last` is the
    filter's belief about the optimum after the end, which no later gradient has seen.
    """

    belief: AnyBelief
    lag_covariance: PyTree
    last: AnyBelief


def smooth_stream(filter: Filter, belief: AnyBelief, stream: GradientStream) -> SmoothedStream:
    """Belief about every step given all gradients: the fixed-interval smoother [SM-4].

    After Rauch, Tung and Striebel. vmap over any argument; differentiable in the filter's numbers,
    the belief and the stream. A covariance of the full filter is differentiated within its
    range (`theory.on_its_range`).

    Args:
        filter: of a kind that `look_back` knows; a new one of the same kind compiles nothing.
        belief: held before the first gradient, as `filter.init` gives it.
        stream: of any length, 0 included; steps that are not valid are smoothed over.

    Raises:
        ValueError: what `filter_stream` refuses; a filter that cannot look back.
    """
    filtered = filter_stream(filter, belief, stream)
    smoothed, lags = _walk_back(filter, filtered.conditioned, filtered.last)
    return SmoothedStream(belief=smoothed, lag_covariance=lags, last=filtered.last)


def sample_posterior(
    key: PRNGKeyArray, filter: Filter, belief: AnyBelief, stream: GradientStream
) -> PosteriorPath:
    """One path of the optimum drawn from the posterior given all gradients [SM-5].

    Backward sampling: the optimum after the end is drawn from the filter's last belief, then each
    one from what is left once its successor is known. The path is exact, correlations in time
    included. For many paths vmap over `key`: the filter still runs once.

    Args:
        key: used once.
        filter: of a kind that `look_back` knows.
        belief: held before the first gradient.
        stream: of any length, 0 included.

    Returns:
        The optimum at each gradient: a tree like the weights with a leading axis of steps; and
        the velocity, where the filter has one.

    Raises:
        ValueError: what `filter_stream` refuses; a filter that cannot look back.
    """
    filtered = filter_stream(filter, belief, stream)
    return _draw_back(key, filter, filtered.conditioned, filtered.last)


@jax.jit
def _walk_back(filter: Filter, conditioned: AnyBelief, last: AnyBelief):
    """Scan that `smooth_stream` runs, from the end to the beginning."""

    def step(later: AnyBelief, now: AnyBelief):
        smoothed, lag = look_back(filter, now).smoothed(later)
        return smoothed, (smoothed, lag)

    return jax.lax.scan(step, last, conditioned, reverse=True)[1]


@jax.jit
def _draw_back(key: PRNGKeyArray, filter: Filter, conditioned: AnyBelief, last: AnyBelief):
    """Scan that `sample_posterior` runs, from the end to the beginning."""
    steps = jax.tree.leaves(conditioned)[0].shape[0] if jax.tree.leaves(conditioned) else 0
    last_key, path_key = jax.random.split(key)

    def step(later: PosteriorPath, now: tuple[PRNGKeyArray, AnyBelief]):
        step_key, belief = now
        path = draw_latent(look_back(filter, belief).given(later), step_key)
        return path, path

    start = draw_latent(last, last_key)
    keys = jax.random.split(path_key, steps)
    return jax.lax.scan(step, start, (keys, conditioned), reverse=True)[1]
