"""What do the data say, and what only the prior? Contraction, profile likelihood, relaxation times.

A posterior can be calibrated and still say nothing. Three looks at that. Contraction: how much of
the prior's variance, on the log scale, the data took away. Profile likelihood: the best likelihood
at each value of one number, all others free; it knows no prior, and where it stays flat to one side
the data set no bound there. Relaxation times in the window: an optimum that is drawn back by a
shrink s forgets in 1/s steps, and the stationary variance shows only as often as that happens;
below about three of them in a stream it is weak, however many steps there are.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from bayesfilt.checks import require_at_least, require_one_of
from bayesfilt.infer.draw import draw_numbers
from bayesfilt.infer.likelihood import log_likelihood
from bayesfilt.infer.priors import Priors
from bayesfilt.infer.state_space import Model, parameter_names
from bayesfilt.infer.streams import Streams
from bayesfilt.theory.ornstein_uhlenbeck import exact_shrink

RELAXATION_TIMES_NEEDED = 3.0  # in a stream, for its stationary variance to show
LITTLE = 0.5  # contraction below which the prior says more than the data
NOT_WORSE = 1.92  # nats below the best: half the 95 % point of chi², one degree of freedom
LBFGS_STEPS = 40


class Contraction(NamedTuple):
    """1 - posterior variance / prior variance of every number, of its log where it is positive.

    1: the data settled it. 0: they said nothing. Below 0: they contradict the prior.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "names layers"]


class Window(NamedTuple):
    """Relaxation times in the streams of every layer, posterior quantiles."""

    median: Float[np.ndarray, " layers"]
    low: Float[np.ndarray, " layers"]  # 5 %
    high: Float[np.ndarray, " layers"]  # 95 %


class Profile(NamedTuple):
    """Best log likelihood of one layer's streams where one number is held at each grid value."""

    name: str
    grid: Float[np.ndarray, " points"]  # of the number itself
    log_likelihood: Float[np.ndarray, " points"]  # nats
    best: dict[str, Float[np.ndarray, " points"]]  # all numbers, there

    @property
    def bounded(self) -> tuple[bool, bool]:
        """Do the data exclude the grid's low end, and its high end, at 95 %?"""
        low, high = np.max(self.log_likelihood) - self.log_likelihood[[0, -1]] > NOT_WORSE
        return bool(low), bool(high)


class Identifiability(NamedTuple):
    """What the data say of every number, and the same in words."""

    layer_names: tuple[str, ...]
    contraction: Contraction
    window: Window | None  # None where the model's optimum is never drawn back
    statements: tuple[str, ...]  # a sentence about every number that is weak; empty if none is


def identifiability(
    key: PRNGKeyArray,
    model: Model,
    streams: Streams,
    priors: Priors,
    posterior: Mapping[str, Any],
    *,
    num_prior_draws: int = 4_000,
) -> Identifiability:
    """What a fit learned from the data, by layer.

    Args:
        key: of the prior draws.
        model: that was fitted.
        streams: that it was fitted to.
        priors: that it was fitted with.
        posterior: draws of the numbers by name, the layers last: [..., layers]. A fit's
            posterior group, or a dict.
        num_prior_draws: 4000 give a prior variance to 2 %.

    Raises:
        ValueError: a number of the model that `posterior` does not have.
    """
    require_at_least("identifiability", "num_prior_draws", num_prior_draws, 2)
    found = _by_name(model, streams, posterior)
    found_prior = _prior_draws(key, model, streams, priors, num_prior_draws)
    shrunk = contraction(found_prior, found)
    window = None
    if "stationary_variance" in found:
        window = relaxation_times(found["drift_scale"], found["stationary_variance"], streams)
    return Identifiability(
        layer_names=streams.layer_names,
        contraction=shrunk,
        window=window,
        statements=tuple(_statements(shrunk, window, streams)),
    )


def contraction(prior: Mapping[str, Any], posterior: Mapping[str, Any]) -> Contraction:
    """How much of each number's prior variance the data took away; draws are [..., layers].

    On the log scale where all prior draws are positive.
    """
    names, values = tuple(sorted(posterior)), []
    for name in names:
        before, after = (_draws_of(draws[name]) for draws in (prior, posterior))
        if (before > 0).all():
            before, after = np.log(before), np.log(after)
        values.append(1 - after.var(axis=0) / before.var(axis=0))
    return Contraction(names=names, values=np.stack(values))


def relaxation_times(drift_scale: Any, stationary_variance: Any, streams: Streams) -> Window:
    """How often an optimum forgets within its layer's longest stream: shrink times steps.

    Args:
        drift_scale: draws, [..., layers]; units of a weight.
        stationary_variance: the same draws; weight².
        streams: for the steps between a stream's first and last valid one.
    """
    valid, layer = np.asarray(streams.valid), np.asarray(streams.layer)
    steps = valid.shape[1]
    span = np.where(
        valid.any(axis=1), steps - valid.argmax(axis=1) - valid[:, ::-1].argmax(axis=1), 0
    )
    spans = np.array(
        [span[layer == i].max(initial=0) for i in range(len(streams.layer_names))], float
    )
    shrink = exact_shrink(*map(jnp.asarray, map(_draws_of, (drift_scale, stationary_variance))))
    low, median, high = np.quantile(np.asarray(shrink), [0.05, 0.5, 0.95], axis=0) * spans
    return Window(median=median, low=low, high=high)


def profile_likelihood(
    model: Model,
    streams: Streams,
    start: Mapping[str, float],
    name: str,
    grid: Any,
    *,
    layer: int = 0,
) -> Profile:
    """Best log likelihood of a layer's streams at each value of one number, the others free.

    The layer's streams share their numbers here, whatever the model's pooling. Found by L-BFGS on
    the logs of positive numbers, from one grid value to the next, each from the last one's best.

    Args:
        model: any.
        streams: the data.
        start: a value of every number, near the best for the first grid value.
        name: the number that is held.
        grid: its values, in increasing or decreasing order; factors of 1.5 apart or closer.
        layer: index of the layer.

    Raises:
        ValueError: a name that the model does not have, or a start that lacks one.
    """
    names = parameter_names(model, streams.kind)
    require_one_of("profile_likelihood", "number", name, names)
    missing = [other for other in names if other not in start]
    if missing:
        raise ValueError(f"profile_likelihood needs a start for {', '.join(missing)}, got none.")
    dtype = streams.observed.dtype
    free = {
        other: jnp.asarray(_free(other, np.asarray(start[other], float)), dtype)
        for other in names
        if other != name
    }
    held = jnp.asarray(_free(name, np.asarray(grid, float)), dtype)
    mine = (streams.layer == layer).astype(dtype)
    best, values = _follow(model, name, streams, mine, free, held)
    return Profile(
        name=name,
        grid=np.asarray(grid, float),
        log_likelihood=np.asarray(values),
        best={other: np.asarray(_bound(other, path)) for other, path in best.items()},
    )


@functools.partial(jax.jit, static_argnames=("model", "name"))
def _follow(model: Model, name: str, streams: Streams, mine: Array, free: dict, held: Array):
    """Maximise over `free` at every value of `held`, one after the other."""
    rows = streams.observed.shape[0]

    def cost(free: dict, value: Array) -> Array:
        numbers = {other: _bound(other, number) for other, number in (free | {name: value}).items()}
        numbers = {other: jnp.broadcast_to(number, rows) for other, number in numbers.items()}
        return -jnp.sum(mine * log_likelihood(model, numbers, streams))

    optimizer = optax.lbfgs()

    def climb(free: Any, value: Array):
        here = functools.partial(cost, value=value)
        look = optax.value_and_grad_from_state(here)

        def step(carry, _):
            free, state = carry
            value, slope = look(free, state=state)
            updates, state = optimizer.update(
                slope, state, free, value=value, grad=slope, value_fn=here
            )
            return (optax.apply_updates(free, updates), state), None

        (free, _), _ = jax.lax.scan(step, (free, optimizer.init(free)), length=LBFGS_STEPS)
        return free, (free | {name: value}, -here(free))

    if not free:
        return {name: held}, -jax.vmap(lambda value: cost({}, value))(held)
    return jax.lax.scan(climb, free, held)[1]


def _free(name: str, number: Any) -> Any:
    """A number without bounds: its log, unless it may be negative."""
    return number if name == "towards" else np.log(number)


def _bound(name: str, number: Array) -> Array:
    """The inverse of `_free`; a fraction stays one."""
    if name == "towards":
        return number
    return jnp.minimum(jnp.exp(number), 1 - 1e-9) if name == "velocity_shrink" else jnp.exp(number)


def _draws_of(draws: Any) -> Float[np.ndarray, "draws layers"]:
    """Draws of all chains in one row, layers last."""
    array = np.asarray(draws, float)
    return array.reshape(-1, array.shape[-1])


def _by_name(model: Model, streams: Streams, posterior: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Draws of the model's numbers out of whatever else a posterior holds."""
    names = parameter_names(model, streams.kind)
    missing = [name for name in names if name not in posterior]
    if missing:
        raise ValueError(f"identifiability needs draws of {', '.join(missing)}, got none.")
    return {name: _draws_of(posterior[name]) for name in names}


def _prior_draws(
    key: PRNGKeyArray, model: Model, streams: Streams, priors: Priors, count: int
) -> dict[str, np.ndarray]:
    """Prior draws of every layer's numbers."""
    by_layer = Model(
        transition=model.transition, noise=model.noise, tails=model.tails, pooling="layer"
    )
    keys = jax.random.split(key, count)
    drawn = _draw_by_layer(keys, by_layer, priors, len(streams.layer_names), streams.kind)
    return {name: np.asarray(values) for name, values in drawn.items()}


@functools.partial(jax.jit, static_argnames=("model", "num_layers", "kind"))
def _draw_by_layer(
    keys: PRNGKeyArray, model: Model, priors: Priors, num_layers: int, kind: str
) -> dict[str, Array]:
    """One draw of every layer's numbers for each key."""

    def draw(key: PRNGKeyArray) -> dict[str, Array]:
        return draw_numbers(key, model, priors, num_layers, jnp.arange(num_layers), kind)

    return jax.vmap(draw)(keys)


def _statements(found: Contraction, window: Window | None, streams: Streams) -> list[str]:
    """A sentence for everything that is weak, layer by layer."""
    said = []
    for index, layer in enumerate(streams.layer_names):
        rows = int((np.asarray(streams.layer) == index).sum())
        for name, value in zip(found.names, found.values[:, index], strict=True):
            learned = f"the data took away {max(value, 0):.0%} of its prior variance"
            if name == "stationary_variance" and window is not None:
                seen = window.median[index]
                if seen < RELAXATION_TIMES_NEEDED:
                    said.append(
                        f"{name} of {layer} is weak: {seen:.1f} relaxation times in the window "
                        f"(90 %: {window.low[index]:.1f} to {window.high[index]:.1f}), below "
                        f"about three; over its {rows} streams {learned}."
                    )
                    continue
            if value < LITTLE:
                said.append(f"{name} of {layer} is weak: {learned}.")
    return said
