import hashlib
import struct

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

from bayesfilt.tasks import (
    dataset_from_arrays,
    load_dataset,
    load_digits,
    load_npz,
    take_subset,
    with_label_noise,
)


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def arrays(train=6, test=3, shape=(2, 2)):
    random = np.random.default_rng(0)
    return {
        "train_inputs": random.normal(size=(train, *shape)),
        "train_labels": random.integers(0, 3, train),
        "test_inputs": random.normal(size=(test, *shape)),
        "test_labels": random.integers(0, 3, test),
    }


def refused(call, *words):
    """The ValueError's text: one line that has every word."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def test_the_digits_are_scikit_learn_s_split_once_for_all(digits):
    assert digits.train_inputs.shape == (1297, 8, 8) and digits.test_inputs.shape == (500, 8, 8)
    assert digits.train_inputs.min() == 0 and digits.train_inputs.max() == 1
    whole = datasets.load_digits()
    ours = np.concatenate([digits.train_inputs, digits.test_inputs]).reshape(1797, 64) * 16
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    rows = sorted((*image, label) for image, label in zip(ours, labels, strict=True))
    assert rows == sorted(
        (*image, label) for image, label in zip(whole.data, whole.target, strict=True)
    )
    # Every run anywhere must train and test on the same images.
    train_pixels = (digits.train_inputs * 16).astype(np.uint8).tobytes()
    assert hashlib.sha256(train_pixels).hexdigest().startswith("5b6afff58e31a480")


def test_every_class_is_in_both_splits_in_like_numbers(digits):
    train = np.bincount(digits.train_labels) / 1297
    test = np.bincount(digits.test_labels) / 500
    assert digits.num_classes == 10 and np.abs(train - test).max() < 0.05


def test_subsets_are_nested_and_leave_the_test_set_alone(digits):
    key = jax.random.key(0)
    few, more = take_subset(key, digits, 50), take_subset(key, digits, 300)
    np.testing.assert_array_equal(few.train_inputs, more.train_inputs[:50])
    np.testing.assert_array_equal(few.train_labels, more.train_labels[:50])
    assert few.test_inputs is digits.test_inputs
    rows = {image.tobytes() for image in digits.train_inputs}
    assert len({image.tobytes() for image in more.train_inputs} & rows) == 300


@pytest.mark.parametrize("size", [0, 1298, 2.5])
def test_a_subset_must_be_there(digits, size):
    refused(lambda: take_subset(jax.random.key(0), digits, size), "size", size)


def test_label_noise_is_nested(digits):
    key = jax.random.key(2)
    less, more = with_label_noise(key, digits, 0.1), with_label_noise(key, digits, 0.2)
    wrong = less.train_labels != digits.train_labels
    np.testing.assert_array_equal(less.train_labels[wrong], more.train_labels[wrong])


@given(st.floats(0, 0.999), st.integers(0, 1000), st.integers(2, 10))
def test_label_noise_touches_exactly_its_share_and_never_keeps_the_label(fraction, seed, classes):
    labels = np.arange(200) % classes
    inputs = np.zeros((200, 1))
    clean = dataset_from_arrays(inputs, labels, inputs, labels)
    noisy = with_label_noise(jax.random.key(seed), clean, fraction)
    changed = noisy.train_labels != labels
    assert changed.sum() == round(200 * fraction)
    assert noisy.train_labels.min() >= 0 and noisy.train_labels.max() < classes
    np.testing.assert_array_equal(noisy.test_labels, labels)
    np.testing.assert_array_equal(clean.train_labels, labels)  # the argument is untouched


def test_wrong_labels_are_uniform_over_the_other_classes():
    count, classes = 20_000, 5
    inputs = np.zeros((count, 1))
    labels = np.full(count, 3)
    labels[0] = classes - 1
    clean = dataset_from_arrays(inputs, labels, inputs, labels)
    noisy = with_label_noise(jax.random.key(1), clean, 0.9)
    wrong = np.bincount(noisy.train_labels[noisy.train_labels != labels], minlength=classes)
    expected = count * 0.9 / 4
    others = np.delete(wrong, 3)
    assert np.all(np.abs(others - expected) < 5 * np.sqrt(expected))


def test_label_noise_needs_a_fraction_and_a_second_class(digits):
    refused(lambda: with_label_noise(jax.random.key(0), digits, 1.0), "fraction=1")
    refused(lambda: with_label_noise(jax.random.key(0), digits, -0.1), "fraction=-0.1")
    one = dataset_from_arrays(np.zeros((2, 1)), [0, 0], np.zeros((2, 1)), [0, 0])
    refused(lambda: with_label_noise(jax.random.key(0), one, 0.5), "at least 2 classes")


def test_an_npz_comes_back(tmp_path):
    path = tmp_path / "mine with spaces é.npz"
    np.savez(path, **arrays(), notes=np.array([1, 2]))
    dataset = load_dataset(path)
    for name, array in arrays().items():
        np.testing.assert_array_equal(getattr(dataset, name), array)
    assert dataset.input_shape == (2, 2)


def test_bytes_are_scaled_and_other_numbers_are_not():
    parts = arrays()
    parts["train_inputs"] = np.array([0, 51, 255], np.uint8).reshape(3, 1)
    parts["train_labels"] = np.array([0, 1, 2], np.uint64)
    parts["test_inputs"] = np.array([[7.0], [-2.5], [300.0]])
    dataset = dataset_from_arrays(**parts)
    np.testing.assert_allclose(dataset.train_inputs.ravel(), [0, 0.2, 1], rtol=1e-7)
    np.testing.assert_array_equal(dataset.test_inputs.ravel(), [7.0, -2.5, 300.0])
    assert dataset.train_labels.dtype == np.int32


def test_an_npz_that_lacks_an_array_says_which_and_what_it_has(tmp_path):
    path = tmp_path / "mine.npz"
    parts = arrays()
    del parts["test_labels"]
    np.savez(path, **parts, y=np.zeros(2))
    refused(lambda: load_npz(path), path, "lacks the arrays test_labels", "train_inputs", ", y.")


def test_python_objects_in_an_npz_are_never_unpickled(tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, **{**arrays(), "train_labels": np.array([{}, {}], object)})
    refused(lambda: load_npz(path), path, "Object arrays cannot be loaded")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\0v\0{}", b"\x80\x04K\x01."])
def test_other_files_are_not_npz(tmp_path, content):
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    refused(lambda: load_npz(path), path, "not an .npz file")


def test_a_missing_path_is_named(tmp_path):
    refused(lambda: load_dataset(tmp_path / "nowhere"), tmp_path / "nowhere", "does not exist")


@given(st.data())
def test_an_npz_cut_or_spoiled_anywhere_is_one_line_or_a_data_set(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("npz") / "mine.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    if data.draw(st.booleans(), label="cut"):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        refused(lambda: load_npz(path), path)
        return
    at = data.draw(st.integers(0, len(whole) - 1))
    spoiled = bytearray(whole)
    spoiled[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(spoiled)
    try:
        load_npz(path)  # a byte of a time stamp may be anything
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_inputs": np.zeros((5, 2, 2))}, ["5 train_inputs but 6 train_labels"]),
        ({"test_inputs": np.zeros((3, 4))}, ["(2, 2)", "(4,)"]),
        ({"train_inputs": np.zeros((0, 2, 2)), "train_labels": np.zeros(0, int)}, ["train_inputs"]),
        ({"test_inputs": np.full((3, 2, 2), np.nan)}, ["NaN", "test_inputs"]),
        ({"test_inputs": np.zeros((3, 2, 2), int)}, ["int64", "test_inputs"]),
        ({"train_inputs": np.zeros((6, 2, 2), complex)}, ["complex128"]),
        ({"train_inputs": np.zeros(6)}, ["(6,)"]),
        ({"train_labels": np.zeros(6)}, ["whole train_labels", "float64"]),
        ({"train_labels": np.zeros((6, 3), int)}, ["(6, 3)"]),
        ({"test_labels": np.array([0, -1, 2])}, ["test_labels >= 0", "-1"]),
        ({"test_labels": np.array([0, 2**40, 2])}, ["test_labels", str(2**40)]),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_the_source_and_the_array(changed, words):
    parts = {**arrays(), **changed}
    refused(lambda: dataset_from_arrays(**parts, source="mine.npz"), "mine.npz", *words)


def write_idx(path, array):
    path.write_bytes(
        struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    )


def write_mnist(folder, train_labels):
    write_idx(folder / "train-images-idx3-ubyte", np.full((3, 2, 2), 51, np.uint8))
    write_idx(folder / "train-labels-idx1-ubyte", np.array(train_labels, np.uint8))
    write_idx(folder / "t10k-images-idx3-ubyte", np.full((2, 2, 2), 102, np.uint8))
    write_idx(folder / "t10k-labels-idx1-ubyte", np.array([1, 0], np.uint8))


def test_a_folder_of_idx_files_is_recognised_and_scaled(tmp_path):
    write_mnist(tmp_path, [0, 4, 2])
    dataset = load_dataset(str(tmp_path))
    np.testing.assert_allclose(dataset.train_inputs, np.full((3, 2, 2), 0.2), rtol=1e-6)
    np.testing.assert_array_equal(dataset.train_labels, [0, 4, 2])
    assert dataset.num_classes == 5


def test_a_folder_with_fewer_labels_than_images_is_refused(tmp_path):
    write_mnist(tmp_path, [0, 1])
    refused(lambda: load_dataset(tmp_path), tmp_path, "3 train_inputs but 2 train_labels")


def test_a_folder_of_cifar_batches_is_recognised_and_scaled(tmp_path):
    record = bytes([7]) + bytes([255]) * 1024 + bytes([51]) * 1024 + bytes(1024)
    (tmp_path / "data_batch_1.bin").write_bytes(record * 2)
    (tmp_path / "test_batch.bin").write_bytes(record)
    dataset = load_dataset(tmp_path)
    assert dataset.train_inputs.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(dataset.train_inputs[0].mean(axis=(1, 2)), [1, 0.2, 0], rtol=1e-5)
    np.testing.assert_array_equal(dataset.train_labels, [7, 7])


def test_a_folder_of_something_else_says_what_was_wanted_and_what_is_there(tmp_path):
    refused(lambda: load_dataset(tmp_path), tmp_path, "no files", "IDX", "CIFAR-10")
    (tmp_path / "cat.jpg").write_bytes(b"x")
    refused(lambda: load_dataset(tmp_path), "it has cat.jpg")


def test_a_folder_with_both_kinds_is_not_guessed_at(tmp_path):
    write_mnist(tmp_path, [0, 1, 2])
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073))
    refused(lambda: load_dataset(tmp_path), tmp_path, "both")
