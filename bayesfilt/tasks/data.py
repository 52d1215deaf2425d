"""Labelled data sets as NumPy arrays: digits, `.npz` files, MNIST- and CIFAR-style folders.

What a data set contains never depends on the seed that trains on it: the digits' split is
fixed, and subsets and label noise have a key of their own.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Integer, PRNGKeyArray

from bayesfilt.checks import require_at_least, require_fraction
from bayesfilt.tasks.image_files import (
    find_cifar_files,
    find_idx_files,
    read_cifar_folder,
    read_idx_folder,
    reading,
)

NUM_DIGITS_TRAIN = 1297  # of 1797; the other 500 are the test set
_DIGITS_SPLIT_SEED = 1797


class Dataset(NamedTuple):
    """Inputs and whole labels 0 ... classes-1, split once for all."""

    train_inputs: Float[np.ndarray, " train *shape"]
    train_labels: Integer[np.ndarray, " train"]
    test_inputs: Float[np.ndarray, " test *shape"]
    test_labels: Integer[np.ndarray, " test"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train_inputs.shape[1:]

    @property
    def num_classes(self) -> int:
        """One more than the largest label of either split."""
        return 1 + int(max(self.train_labels.max(), self.test_labels.max()))


def dataset_from_arrays(
    train_inputs, train_labels, test_inputs, test_labels, *, source: str = "dataset_from_arrays"
) -> Dataset:
    """Check four arrays and make them a `Dataset`.

    Args:
        train_inputs: (train, *shape); floating numbers are kept, bytes (uint8) are divided by 255.
        train_labels: (train,), whole numbers from 0.
        test_inputs: (test, *shape).
        test_labels: (test,).
        source: file or folder that error messages name.

    Raises:
        ValueError: naming `source` and the array at fault: empty, of another shape or type,
            with NaN or infinity, or with as many labels as it has no inputs for.
    """
    inputs = {"train_inputs": np.asarray(train_inputs), "test_inputs": np.asarray(test_inputs)}
    labels = {"train_labels": np.asarray(train_labels), "test_labels": np.asarray(test_labels)}
    for name, array in inputs.items():
        inputs[name] = _checked_inputs(source, name, array)
    for name, array in labels.items():
        labels[name] = _checked_labels(source, name, array)
    for split in ("train", "test"):
        num_inputs, num_labels = len(inputs[f"{split}_inputs"]), len(labels[f"{split}_labels"])
        if num_inputs != num_labels:
            raise ValueError(
                f"{source} has {num_inputs} {split}_inputs but {num_labels} {split}_labels."
            )
    train_shape, test_shape = (array.shape[1:] for array in inputs.values())
    if train_shape != test_shape:
        raise ValueError(
            f"{source} has train_inputs of shape {train_shape} but test_inputs of {test_shape}."
        )
    return Dataset(**inputs, **labels)


def load_digits() -> Dataset:
    """The 1797 handwritten digits that scikit-learn carries: (n, 8, 8), scaled to [0, 1].

    1297 train and 500 test, shuffled once by a fixed seed, so every run and every
    version sees the same split.
    """
    from sklearn import datasets  # costs a second; nothing else needs it

    images, labels = map(np.asarray, datasets.load_digits(return_X_y=True))
    inputs = images.reshape(-1, 8, 8) / 16.0
    # RandomState is the generator whose stream NumPy has promised never to change.
    order = np.random.RandomState(_DIGITS_SPLIT_SEED).permutation(len(labels))
    train, test = order[:NUM_DIGITS_TRAIN], order[NUM_DIGITS_TRAIN:]
    return dataset_from_arrays(inputs[train], labels[train], inputs[test], labels[test])


def load_npz(path: str | Path) -> Dataset:
    """Read an `.npz` with train_inputs, train_labels, test_inputs and test_labels.

    Raises:
        ValueError: not an `.npz`, damaged, an array missing or holding Python objects.
    """
    path = Path(path)
    with reading(path):
        path.stat()  # a missing file is not a damaged one
        is_zip = zipfile.is_zipfile(path)
    if not is_zip:
        raise ValueError(f"{path} is truncated or not an .npz file.")
    with reading(path), np.load(path, allow_pickle=False) as archive:
        present = list(archive.files)
        arrays = {name: archive[name] for name in Dataset._fields if name in present}
    missing = [name for name in Dataset._fields if name not in arrays]
    if missing:
        raise ValueError(
            f"{path} lacks the arrays {', '.join(missing)}; it has {', '.join(present) or 'none'}."
        )
    return dataset_from_arrays(**arrays, source=str(path))


def load_dataset(path: str | Path) -> Dataset:
    """Read whatever `path` is: an `.npz`, a folder of IDX files or of CIFAR-10 binary batches."""
    path = Path(path)
    if not path.is_dir():
        return load_npz(path)
    with reading(path):
        is_idx, is_cifar = bool(find_idx_files(path)), bool(find_cifar_files(path))
        names = sorted(item.name for item in path.iterdir())
    if is_idx and is_cifar:
        raise ValueError(f"{path} holds both IDX files and CIFAR-10 batches; keep them apart.")
    if not is_idx and not is_cifar and "data_batch_1" not in names:
        found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise ValueError(
            f"{path} holds neither MNIST-style IDX files (train-images-idx3-ubyte, ...) nor"
            f" CIFAR-10 binary batches (data_batch_1.bin, ...); it has {found or 'no files'}."
        )
    images = read_idx_folder(path) if is_idx else read_cifar_folder(path)
    return dataset_from_arrays(
        images.train_images,
        images.train_labels,
        images.test_images,
        images.test_labels,
        source=str(path),
    )


def take_subset(key: PRNGKeyArray, dataset: Dataset, size: int) -> Dataset:
    """Keep `size` random training examples; one key gives nested subsets. Test is untouched."""
    available = len(dataset.train_labels)
    require_at_least("take_subset", "size", size, 1)
    if size > available:
        raise ValueError(f"take_subset needs size <= {available} training examples, got {size}.")
    kept = np.asarray(jax.random.permutation(key, available))[: int(size)]
    return Dataset(
        train_inputs=dataset.train_inputs[kept],
        train_labels=dataset.train_labels[kept],
        test_inputs=dataset.test_inputs,
        test_labels=dataset.test_labels,
    )


def with_label_noise(key: PRNGKeyArray, dataset: Dataset, fraction: float) -> Dataset:
    """Give `fraction` of the training examples (rounded to a count) a label that is wrong.

    Each wrong label is uniform over the other classes. One key gives nested noise: what is
    wrong at 10 % is wrong in the same way at 20 %. Test is untouched.
    """
    require_fraction("with_label_noise", "fraction", fraction)
    classes, available = dataset.num_classes, len(dataset.train_labels)
    if classes < 2:
        raise ValueError("with_label_noise needs at least 2 classes, got 1.")
    which_key, label_key = jax.random.split(key)
    chosen = np.asarray(jax.random.permutation(which_key, available))[: round(fraction * available)]
    # Going round by 1 ... classes-1 never comes back to the true label.
    shift = np.asarray(jax.random.randint(label_key, (available,), 1, classes))
    labels = dataset.train_labels.copy()
    labels[chosen] = (labels[chosen] + shift[chosen]) % classes
    return Dataset(
        train_inputs=dataset.train_inputs,
        train_labels=labels,
        test_inputs=dataset.test_inputs,
        test_labels=dataset.test_labels,
    )


def _checked_inputs(source: str, name: str, inputs: np.ndarray) -> np.ndarray:
    if inputs.ndim < 2 or not inputs.size:
        raise ValueError(
            f"{source} needs {name} with examples along the first axis and numbers along the"
            f" others, got shape {inputs.shape}."
        )
    if inputs.dtype == np.uint8:
        return inputs.astype(np.float32) / np.float32(255)
    if inputs.dtype.kind != "f":
        raise ValueError(f"{source} needs floating or uint8 {name}, got {inputs.dtype}.")
    if not np.isfinite(inputs).all():
        raise ValueError(f"{source} has NaN or infinity in {name}.")
    return inputs


def _checked_labels(source: str, name: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{source} needs whole {name} along one axis, got {labels.dtype} of shape"
            f" {labels.shape}."
        )
    most = np.iinfo(np.int32).max
    for extreme in (labels.min(), labels.max()) if labels.size else ():
        if not 0 <= extreme <= most:
            raise ValueError(f"{source} needs {name} >= 0 and at most {most}, got {extreme}.")
    return labels.astype(np.int32)
