"""Tasks made of examples: classification by our networks, and a user's own model and data.

Minibatches are drawn with replacement, each example on its own: every gradient is then an
independent sample of the same law, as the filter's observation model has it, and a run needs no
epoch bookkeeping.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Integer, PRNGKeyArray, PyTree

from bayesfilt.custom_types import Params
from bayesfilt.tasks.data import Dataset
from bayesfilt.tasks.networks import Network, network_for
from bayesfilt.tasks.task import Batch, float_dtype, whole_batch_size

# Whole data sets are evaluated in pieces of this many, so that memory does not grow with them.
_EXAMPLES_AT_ONCE = 512


class Examples(NamedTuple):
    """A minibatch of labelled inputs."""

    inputs: Float[Array, " examples *shape"]
    labels: Integer[Array, " examples"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Supervised:
    """Classification: mean cross entropy of a network on minibatches of a data set."""

    train: Examples
    test: Examples
    network: Network = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})

    def init_params(self, key: PRNGKeyArray) -> Params:
        """Weights drawn by the network, in the dtype of the inputs."""
        return self.network.init(key, self.train.inputs.dtype)

    def sample_batch(self, key: PRNGKeyArray, step) -> Examples:
        """Draw `batch_size` training examples with replacement."""
        del step
        return draw_examples(key, self.train, self.batch_size)

    def loss(self, params: Params, batch: Examples) -> Float[Array, ""]:
        """Mean cross entropy over the minibatch, in nats."""
        return _cross_entropy(jax.nn.log_softmax(self.network.apply(params, batch.inputs)), batch)

    def training_loss(self, params: Params) -> Float[Array, ""]:
        """Mean cross entropy over the whole training set, in nats."""
        return _cross_entropy(self._logarithms(params, self.train.inputs), self.train)

    def log_probabilities(self, params: Params) -> Float[Array, "examples classes"]:
        """Log probability of every class for every held-out input."""
        return self._logarithms(params, self.test.inputs)

    def _logarithms(
        self, params: Params, inputs: Float[Array, " examples *shape"]
    ) -> Float[Array, "examples classes"]:
        """Log probability of every class for every input, in pieces."""
        pieces, rest = divmod(len(inputs), _EXAMPLES_AT_ONCE)
        whole = len(inputs) - rest
        logits = [self.network.apply(params, inputs[whole:])] if rest else []
        if pieces:
            stacked = inputs[:whole].reshape(pieces, _EXAMPLES_AT_ONCE, *inputs.shape[1:])
            mapped = jax.lax.map(lambda piece: self.network.apply(params, piece), stacked)
            logits.insert(0, mapped.reshape(whole, -1))
        return jax.nn.log_softmax(jnp.concatenate(logits))

    def evaluate(self, params: Params) -> dict[str, Float[Array, ""]]:
        """`test_loss` (mean cross entropy, nats) and `test_accuracy` (fraction)."""
        log_probabilities = self.log_probabilities(params)
        right = jnp.argmax(log_probabilities, axis=-1) == self.test.labels
        return {
            "test_loss": _cross_entropy(log_probabilities, self.test),
            "test_accuracy": jnp.mean(right.astype(log_probabilities.dtype)),
        }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Custom:
    """A user's own weights, loss and data; built by `custom_task`."""

    params: Params
    data: PyTree[Array]
    test_data: PyTree[Array] | None
    mean_loss: Callable[[Params, Batch], Array] = dataclasses.field(metadata={"static": True})
    batch_size: int = dataclasses.field(metadata={"static": True})
    draw_params: Callable[[PRNGKeyArray], Params] | None = dataclasses.field(
        metadata={"static": True}
    )
    measure: Callable[[Params, Any], dict[str, Array]] | None = dataclasses.field(
        metadata={"static": True}
    )

    def init_params(self, key: PRNGKeyArray) -> Params:
        """`draw_params(key)` if there is one, else the weights that were handed in."""
        return self.params if self.draw_params is None else self.draw_params(key)

    def sample_batch(self, key: PRNGKeyArray, step) -> Batch:
        """Draw `batch_size` rows of every array with replacement, the same rows of each."""
        del step
        return draw_examples(key, self.data, self.batch_size)

    def loss(self, params: Params, batch: Batch) -> Array:
        """The user's own loss, the mean over the batch."""
        return self.mean_loss(params, batch)

    def evaluate(self, params: Params) -> dict[str, Array]:
        """The user's numbers on `test_data`; the loss on it; or nothing without it."""
        if self.measure is not None:
            return self.measure(params, self.test_data)
        return {} if self.test_data is None else {"test_loss": self.loss(params, self.test_data)}


def supervised_task(
    dataset: Dataset,
    network: Network | str,
    *,
    batch_size: int,
    dtype: DTypeLike | None = None,
) -> Supervised:
    """Train `network` to classify `dataset`.

    Args:
        dataset: from `load_digits`, `load_dataset` or `dataset_from_arrays`.
        network: a description such as `Mlp((64, 64, 10))`, or one of `NETWORK_NAMES`, sized
            to the data.
        batch_size: examples in a minibatch.
        dtype: of inputs and weights; None means JAX's default.

    Raises:
        ValueError: the network reads another number of inputs or knows too few classes.
    """
    owner = "supervised_task"
    kind = float_dtype(owner, dtype)
    if isinstance(network, str):
        network = network_for(network, dataset.input_shape, dataset.num_classes)
    num_inputs = int(np.prod(dataset.input_shape))
    if network.num_inputs != num_inputs:
        raise ValueError(
            f"{owner} needs a network of {num_inputs} inputs for examples of shape"
            f" {dataset.input_shape}, got one of {network.num_inputs}."
        )
    if network.num_classes < dataset.num_classes:
        raise ValueError(
            f"{owner} needs a network of at least {dataset.num_classes} classes,"
            f" got one of {network.num_classes}."
        )

    def examples(inputs, labels):
        return Examples(inputs=jnp.asarray(inputs, kind), labels=jnp.asarray(labels, jnp.int32))

    return Supervised(
        train=examples(dataset.train_inputs, dataset.train_labels),
        test=examples(dataset.test_inputs, dataset.test_labels),
        network=network,
        batch_size=whole_batch_size(owner, batch_size),
    )


def custom_task(
    params: Params,
    loss: Callable[[Params, Batch], Array],
    data: PyTree[Array],
    *,
    batch_size: int,
    test_data: PyTree[Array] | None = None,
    evaluate: Callable[[Params, Any], dict[str, Array]] | None = None,
    draw_params: Callable[[PRNGKeyArray], Params] | None = None,
) -> Custom:
    """Bring your own weights, loss and data.

    Args:
        params: a tree whose leaves are all floating arrays; where every run starts.
        loss: `loss(params, batch)` -> the *mean* loss over the batch, one number. Hand in the
            same function each time: another one, though equal, compiles again.
        data: a tree of arrays with examples along the first axis; a batch is the same tree
            with `batch_size` rows, drawn with replacement.
        batch_size: examples in a minibatch.
        test_data: held-out data; without `evaluate`, `test_loss` is the loss on all of it.
        evaluate: `evaluate(params, test_data)` -> named numbers.
        draw_params: `draw_params(key)` -> fresh weights like `params`, so that seeds differ
            in where they start as well.

    Raises:
        ValueError: a weight that is not a floating array, no data, arrays of unequal first
            axis, `batch_size` below 1, a loss that is not one real number.
    """
    owner = "custom_task"
    size = whole_batch_size(owner, batch_size)
    params = jax.tree.map_with_path(_checked_weight, params)
    if not jax.tree.leaves(params):
        raise ValueError(f"{owner} needs at least one weight in params, got none.")
    data = _checked_data("data", data)
    if test_data is not None:
        test_data = _checked_data("test_data", test_data)
    batch = jax.tree.map(
        lambda rows: jax.ShapeDtypeStruct((size, *rows.shape[1:]), rows.dtype), data
    )
    value = jax.eval_shape(loss, params, batch)
    shape, kind = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape != () or kind is None or not jnp.issubdtype(kind, jnp.floating):
        got = type(value).__name__ if shape is None else f"{kind} of shape {shape}"
        raise ValueError(f"{owner} needs a loss that returns one real number, the mean; got {got}.")
    return Custom(
        params=params,
        data=data,
        test_data=test_data,
        mean_loss=loss,
        batch_size=size,
        draw_params=draw_params,
        measure=evaluate,
    )


def draw_examples(key: PRNGKeyArray, data: PyTree[Array], batch_size: int) -> PyTree[Array]:
    """Draw the same `batch_size` rows of every array, uniformly and with replacement.

    Random bits modulo the number of rows: half the cost of `jax.random.randint`, which draws
    twice to be exactly uniform. Here a row's probability is off by at most rows / 2³².
    """
    rows = jax.tree.leaves(data)[0].shape[0]
    chosen = jax.random.bits(key, (batch_size,), jnp.uint32) % jnp.uint32(rows)
    return jax.tree.map(lambda array: array[chosen], data)


def _cross_entropy(
    log_probabilities: Float[Array, "examples classes"], examples: Examples
) -> Float[Array, ""]:
    """Mean over the examples of minus the log probability of the right class."""
    right = jnp.take_along_axis(log_probabilities, examples.labels[:, None], axis=-1)
    return -jnp.mean(right)


def _checked_weight(path: Any, weight: Any) -> Array:
    """A strongly typed floating array; refuse anything else by its place in the tree."""
    where = f"params{jax.tree_util.keystr(path)}"
    kind = getattr(weight, "dtype", np.dtype(float) if isinstance(weight, float) else None)
    if kind is None:
        raise ValueError(
            f"custom_task needs arrays as weights, got {type(weight).__name__} at {where}; of an"
            " equinox model pass the arrays, eqx.partition(model, eqx.is_array)[0]."
        )
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"custom_task needs floating weights, got {kind} at {where}.")
    if isinstance(weight, float):
        kind = jnp.result_type(float)
    return jnp.asarray(weight, float_dtype(f"custom_task ({where})", kind))


def _checked_data(name: str, data: PyTree) -> PyTree[Array]:
    """Arrays with one number of examples; NumPy's float64 follows JAX's precision switch."""
    owner = "custom_task"
    sizes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        where = f"{name}{jax.tree_util.keystr(path)}"
        kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if not (jnp.issubdtype(kind, jnp.number) or jnp.issubdtype(kind, jnp.bool_)):
            raise ValueError(f"{owner} needs arrays of numbers, got {kind} at {where}.")
        shape = np.shape(leaf)
        if not shape or not shape[0]:
            raise ValueError(
                f"{owner} needs examples along the first axis of {where}, got shape {shape}."
            )
        sizes[where] = shape[0]
    if not sizes:
        raise ValueError(f"{owner} needs at least one array in {name}, got none.")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{where} has {size}" for where, size in sizes.items())
        raise ValueError(f"{owner} needs as many examples in every array: {listed}.")
    return jax.tree.map(jnp.asarray, data)
