"""How large the weights of a layer are, how hard they are pushed, and how fast they turn.

A layer is its matrix with its bias: in front of a normalisation the two together have no
length that the loss could see. Weights that no example can reach (pixels that are always 0)
have no gradient, hence no noise, and are left out.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesfilt.compare import layers_of
from bayesfilt.compare.layers import flat, sums_by_layer
from bayesfilt.simulate import Probe, StepView
from bayesfilt.tasks import Task
from bayesfilt.tasks.supervised import Supervised
from experiments.many_runs import ManyRuns
from experiments.noise_worlds import WholeData


def layer_names(task: Any) -> tuple[str, ...]:
    """Layers in the order of what `layer_probe` records."""
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    return layers_of(shapes).names[:-1]


def live_weights(task: Any) -> np.ndarray:
    """1 for every weight that some example reaches, else 0; as long as all weights."""
    shapes = jax.eval_shape(task.init_params, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    inner = task.task if isinstance(task, WholeData) else task
    if isinstance(inner, Supervised):
        inputs = np.asarray(inner.train.inputs)
        reached = np.any(inputs.reshape(len(inputs), -1) != 0, axis=0)
        first = params["dense_0"].weight  # (units, inputs); a view into the tree
        first *= reached
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def layer_probe(task: Any) -> Probe:
    """A probe of every layer's sizes and turning, over its live weights.

    It gives, by layer: `rms` of the weights, `gradient` (norm), `update` (rms; the decay is a
    part of it), `angle` (radians) from the weights before the step to those after it, `largest`
    (absolute weight), `mean` (of the weights), `length` (norm of the weights), and `radial`, the
    cosine between weights and gradient: 0 where the loss does not see their length.
    """
    layers = layers_of(jax.eval_shape(task.init_params, jax.random.key(0)))
    live = live_weights(task)
    counts = np.array([live[start:end].sum() for start, end in layers.bounds[:-1]])

    def probe(task: Task, view: StepView) -> dict[str, Float[Array, " layers"]]:
        del task
        weight, gradient, update = (
            flat(tree) * live for tree in (view.params, view.gradient, view.updates)
        )
        terms = jnp.stack(
            [weight**2, gradient**2, update**2, weight * update, weight, weight * gradient]
        )
        square, push, move, along, total, inward = sums_by_layer(layers, terms)[:, :-1]
        length = jnp.sqrt(square)
        across = jnp.sqrt(jnp.maximum(move - along**2 / square, 0))
        return {
            "rms": jnp.sqrt(square / counts),
            "gradient": jnp.sqrt(push),
            "update": jnp.sqrt(move / counts),
            "angle": jnp.arctan2(across, length + along / length),
            "largest": jnp.stack([jnp.abs(weight[a:b]).max() for a, b in layers.bounds[:-1]]),
            "mean": total / counts,
            "length": length,
            "radial": inward / jnp.where(push > 0, length * jnp.sqrt(push), 1),
        }

    return probe


def late(
    runs: ManyRuns, name: str, begin: float, end: float = np.inf
) -> Float[np.ndarray, "settings layers seeds"]:
    """Root of the mean square of a layer's number over the records in [begin, end), seeds last."""
    within = (runs.step >= begin) & (runs.step < end)
    values = runs.records["layers"][name][:, :, within]
    return np.moveaxis(np.sqrt(np.mean(np.square(values), axis=2)), 1, -1)


def median_of(values: np.ndarray) -> np.ndarray:
    """Median over seeds, which are last; NaN where a run has diverged."""
    return np.median(values, axis=-1)


def power_law(
    values: Float[np.ndarray, " cells"], axes: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Exponents of a power law in each axis, by least squares of the logarithms."""
    design = np.stack([np.log(each) for each in axes.values()] + [np.ones(len(values))], axis=1)
    if not (np.isfinite(values).all() and (values > 0).all()):
        return dict.fromkeys(axes, float("nan"))
    found = np.linalg.lstsq(design, np.log(values), rcond=None)[0]
    return dict(zip(axes, found[:-1].tolist(), strict=True))
