"""Small networks: a frozen description, and weights in a plain dict of equinox layers.

`{"dense_0": eqx.nn.Linear, ...}` has arrays for leaves and nothing else, so that masks, optax
and `jax.tree.map` never meet a function; the keys name the layers in every figure. Equinox is
looked up when weights are first drawn: importing it costs a second.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from bayesfilt.checks import require_at_least, require_one_of

ACTIVATIONS = ("relu", "tanh", "gelu")
NETWORK_NAMES = ("mlp", "layernorm", "cnn")

Layers = dict[str, Any]  # layer name -> equinox module; Any keeps equinox out of the import


class Network(Protocol):
    """A description that can draw weights and apply them; static, so hashable and comparable."""

    @property
    def num_inputs(self) -> int:
        """Numbers in one example, whatever its shape."""
        ...

    @property
    def num_classes(self) -> int:
        """Logits for one example."""
        ...

    def init(self, key: PRNGKeyArray, dtype: DTypeLike) -> Any:
        """Draw weights: a tree whose leaves are all floating arrays."""
        ...

    def apply(
        self, params: Any, inputs: Float[Array, " examples *shape"]
    ) -> Float[Array, "examples classes"]:
        """Logits of a batch."""
        ...


@dataclasses.dataclass(frozen=True)
class Mlp:
    """Dense layers with an activation between them; `sizes` from inputs to classes."""

    sizes: tuple[int, ...] = (64, 64, 10)
    activation: str = "relu"

    def __post_init__(self) -> None:
        """Check at once: a description is never traced."""
        owner = type(self).__name__
        require_one_of(owner, "activation", self.activation, ACTIVATIONS)
        # A list could not be hashed, and the description is part of what a compiled run is for.
        object.__setattr__(self, "sizes", _whole_sizes(owner, "sizes", self.sizes, 2))

    @property
    def num_inputs(self) -> int:
        """Numbers in one example, whatever its shape."""
        return self.sizes[0]

    @property
    def num_classes(self) -> int:
        """Logits for one example."""
        return self.sizes[-1]

    def init(self, key: PRNGKeyArray, dtype: DTypeLike) -> Layers:
        """Layers "dense_0", "dense_1", ... from equinox's own law (uniform, ±1/√inputs)."""
        from equinox.nn import Linear  # costs a second

        keys = jax.random.split(key, len(self.sizes) - 1)
        return {
            f"dense_{index}": Linear(before, after, dtype=dtype, key=keys[index])
            for index, (before, after) in enumerate(itertools.pairwise(self.sizes))
        }

    def apply(self, params: Layers, inputs: Float[Array, " n *shape"]) -> Float[Array, "n classes"]:
        """Logits; each example is flattened."""
        hidden = inputs.reshape(len(inputs), -1)
        last = len(self.sizes) - 2
        for index in range(last):
            hidden = _activate(self.activation, self._hidden(params, index, hidden))
        return jax.vmap(params[f"dense_{last}"])(hidden)

    def _hidden(self, params: Layers, index: int, inputs: Array) -> Array:
        """What hidden layer `index` hands to its activation."""
        return jax.vmap(params[f"dense_{index}"])(inputs)


@dataclasses.dataclass(frozen=True)
class LayerNormMlp(Mlp):
    """An MLP with each hidden layer normalised before its activation.

    The size of the weights before a normalisation does not change the logits (up to the norm's
    small constant): only their direction learns, and decay sets how fast it can turn.
    """

    def init(self, key: PRNGKeyArray, dtype: DTypeLike) -> Layers:
        """Layers "dense_0", "norm_0", "dense_1", ...; the last dense layer has no norm."""
        from equinox.nn import LayerNorm  # costs a second

        layers = super().init(key, dtype)
        for index, width in enumerate(self.sizes[1:-1]):
            layers[f"norm_{index}"] = LayerNorm(width, dtype=dtype)
        return layers

    def _hidden(self, params: Layers, index: int, inputs: Array) -> Array:
        """What hidden layer `index` hands to its activation."""
        return jax.vmap(params[f"norm_{index}"])(super()._hidden(params, index, inputs))


@dataclasses.dataclass(frozen=True)
class Cnn:
    """Convolutions, each halving the image by a 2x2 maximum, then one dense layer.

    Args:
        image_shape: (channels, height, width) of an example; (8, 8) greys are (1, 8, 8).
        channels: outputs of each convolution; kernels are square, odd, and keep the size.
    """

    image_shape: tuple[int, int, int] = (1, 8, 8)
    channels: tuple[int, ...] = (16, 32)
    num_classes: int = 10
    kernel_size: int = 3
    activation: str = "relu"

    def __post_init__(self) -> None:
        """Check at once: a description is never traced."""
        owner = "Cnn"
        require_one_of(owner, "activation", self.activation, ACTIVATIONS)
        image_shape = _whole_sizes(owner, "image_shape", self.image_shape, 3)
        channels = _whole_sizes(owner, "channels", self.channels, 1)
        num_classes = _whole_sizes(owner, "num_classes", [self.num_classes], 1)[0]
        kernel_size = _whole_sizes(owner, "kernel_size", [self.kernel_size], 1)[0]
        object.__setattr__(self, "image_shape", image_shape)
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "num_classes", num_classes)
        object.__setattr__(self, "kernel_size", kernel_size)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"Cnn needs an odd kernel_size, got {self.kernel_size}.")
        if len(self.image_shape) != 3:
            raise ValueError(
                f"Cnn needs image_shape (channels, height, width), got {self.image_shape}."
            )
        if min(self._final_sides) < 1:
            raise ValueError(
                f"Cnn halves the image {len(self.channels)} times, too often for image_shape"
                f" {self.image_shape}."
            )

    @property
    def num_inputs(self) -> int:
        """Numbers in one example, whatever its shape."""
        return math.prod(self.image_shape)

    @property
    def _final_sides(self) -> tuple[int, int]:
        """Height and width after the last pooling."""
        return tuple(side // 2 ** len(self.channels) for side in self.image_shape[1:])

    def init(self, key: PRNGKeyArray, dtype: DTypeLike) -> Layers:
        """Layers "conv_0", "conv_1", ..., "dense_0" from equinox's own laws."""
        from equinox.nn import Conv2d, Linear  # costs a second

        keys = jax.random.split(key, len(self.channels) + 1)
        widths = (self.image_shape[0], *self.channels)
        size, padding = self.kernel_size, self.kernel_size // 2
        layers: Layers = {
            f"conv_{index}": Conv2d(
                before, after, size, padding=padding, dtype=dtype, key=keys[index]
            )
            for index, (before, after) in enumerate(itertools.pairwise(widths))
        }
        flat = widths[-1] * math.prod(self._final_sides)
        layers["dense_0"] = Linear(flat, self.num_classes, dtype=dtype, key=keys[-1])
        return layers

    def apply(self, params: Layers, inputs: Float[Array, " n *shape"]) -> Float[Array, "n classes"]:
        """Logits; each example is read as `image_shape`."""
        images = inputs.reshape(len(inputs), *self.image_shape)
        hidden = jnp.moveaxis(images, 0, -1)
        for index in range(len(self.channels)):
            hidden = _activate(self.activation, convolve(params[f"conv_{index}"], hidden))
            hidden = _halve(hidden)
        return jax.vmap(params["dense_0"], in_axes=-1)(hidden.reshape(-1, len(inputs)))


def convolve(
    layer: Any, images: Float[Array, "inputs height width n"]
) -> Float[Array, "outputs out_height out_width n"]:
    """Apply an `eqx.nn.Conv2d` to a batch of images as shifted slices and one einsum.

    Equal to the layer's own call on every example. XLA's CPU convolution inside a `lax.scan`
    is many times slower.

    Args:
        layer: zero padding, any stride; no dilation, one group.
        images: examples last, so that every slice is made of long runs of memory and the einsum
            is one matrix product (a quarter faster than with the channels last).

    Raises:
        ValueError: padding given as a word or by another mode, dilation or groups.
    """
    plain = layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "ZEROS"
    if not plain or isinstance(layer.padding, str):
        raise ValueError(
            "convolve needs zero padding given in numbers, no dilation and one group, got"
            f" padding={layer.padding!r} ({layer.padding_mode}), dilation={layer.dilation},"
            f" groups={layer.groups}."
        )
    padded = jnp.pad(images, ((0, 0), *layer.padding, (0, 0)))
    tall, wide = layer.kernel_size
    down, along = layer.stride
    rows = (padded.shape[1] - tall) // down + 1
    columns = (padded.shape[2] - wide) // along + 1
    shifted = [
        padded[:, top : top + down * rows : down, left : left + along * columns : along]
        for top in range(tall)
        for left in range(wide)
    ]
    patches = jnp.concatenate(shifted)
    kernel = layer.weight.transpose(0, 2, 3, 1).reshape(layer.out_channels, -1)
    mixed = jnp.einsum("op,phwn->ohwn", kernel, patches)
    return mixed if layer.bias is None else mixed + layer.bias[..., None]


def network_for(name: str, input_shape: Sequence[int], num_classes: int) -> Network:
    """The network called `name`, sized for examples of `input_shape` and `num_classes`.

    "mlp" and "layernorm" have one hidden layer of 64; "cnn" reads (height, width) or
    (channels, height, width).
    """
    owner = "network_for"
    require_one_of(owner, "networks", name, NETWORK_NAMES)
    shape = tuple(input_shape)
    if name != "cnn":
        kind = Mlp if name == "mlp" else LayerNormMlp
        return kind(sizes=(math.prod(shape), 64, num_classes))
    if len(shape) not in (2, 3):
        raise ValueError(
            f"{owner} needs images (height, width) or (channels, height, width) for 'cnn',"
            f" got examples of shape {shape}."
        )
    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    return Cnn(image_shape=(channels, height, width), num_classes=num_classes)


def _activate(activation: str, values: Array) -> Array:
    return getattr(jax.nn, activation)(values)


def _halve(images: Float[Array, "channels h w n"]) -> Float[Array, "channels half_h half_w n"]:
    """Maximum over 2x2 squares; an odd last row or column is dropped."""
    channels, height, width, count = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(channels, height // 2, 2, width // 2, 2, count).max(axis=(2, 4))


def _whole_sizes(owner: str, name: str, sizes: Sequence[int], least: int) -> tuple[int, ...]:
    """`sizes` as a tuple of at least `least` plain ints, all above zero."""
    if isinstance(sizes, int) or len(sizes) < least:
        raise ValueError(f"{owner} needs at least {least} numbers in {name}, got {sizes!r}.")
    for size in sizes:
        require_at_least(owner, name, size, 1)
    return tuple(int(size) for size in sizes)
