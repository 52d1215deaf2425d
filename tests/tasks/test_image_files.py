"""Small files in the published formats, written here byte by byte."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bayesfilt.tasks.image_files import (
    read_cifar_batch,
    read_cifar_folder,
    read_idx,
    read_idx_folder,
)

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    code = IDX_CODES[array.dtype.str[1:]]
    header = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = (np.arange(5 * 4 * 3) * 4 % 251).astype(np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 0, 2, 2, 1], np.uint8)


def write_idx_folder(folder, *, suffix="", dotted=False, **replaced):
    contents = {
        "train-images-idx3-ubyte": idx_bytes(IMAGES),
        "train-labels-idx1-ubyte": idx_bytes(LABELS),
        "t10k-images-idx3-ubyte": idx_bytes(IMAGES[1:3]),
        "t10k-labels-idx1-ubyte": idx_bytes(LABELS[1:3]),
    }
    for name, content in contents.items():
        content = replaced.get(name.split("-idx")[0].replace("-", "_"), content)
        if content is None:
            continue
        name = name.replace("-idx", ".idx") if dotted else name
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)


def cifar_bytes(images, labels):
    rows = [bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True)]
    return b"".join(rows)


def some_cifar(seed, count):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 3, 32, 32), np.uint8)
    return images, random.integers(0, 10, count).astype(np.uint8)


def refused(call, *words):
    """The ValueError's text: one line that has every word."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    return message


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", IDX_CODES)
def test_idx_of_every_number_type_comes_back(tmp_path, kind, suffix):
    array = (np.arange(24).reshape(2, 3, 4) * 5 - (0 if kind == "u1" else 60)).astype(kind)
    content = idx_bytes(array)
    path = tmp_path / f"numbers{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    read = read_idx(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(
    hnp.arrays(st.sampled_from(["u1", "i2", "f8"]), hnp.array_shapes(max_dims=4), fill=st.just(7))
)
def test_idx_of_any_shape_comes_back(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kept", range(0, 76, 5))
def test_idx_cut_anywhere_is_refused_by_name(tmp_path, kept, suffix):
    whole = idx_bytes(IMAGES)
    content = gzip.compress(whole) if suffix else whole
    assert kept < len(content)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[:kept])
    refused(lambda: read_idx(path), path)


def test_idx_says_what_it_announced_and_what_it_has(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(IMAGES)[:-7])
    refused(lambda: read_idx(path), path, "truncated", "(5, 4, 3)", 76, 69)
    path.write_bytes(idx_bytes(IMAGES) + b"x")
    refused(lambda: read_idx(path), path, "bytes to spare", 76, 77)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n", b"hello, world", b"\0\0\x07\x01\0\0\0\1z", b"PK\3\4 and so on", b"\0\0"],
)
def test_other_files_are_not_idx(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    refused(lambda: read_idx(path), path, "not an IDX file")


def test_a_huge_announced_shape_is_a_line_and_not_a_memory_error(tmp_path):
    path = tmp_path / "huge"
    path.write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3))
    refused(lambda: read_idx(path), path, "truncated")


def test_a_file_called_gz_that_is_not_gzipped_is_refused(tmp_path):
    path = tmp_path / "plain.gz"
    path.write_bytes(idx_bytes(IMAGES))
    refused(lambda: read_idx(path), path, "damaged or cannot be read")


def test_a_missing_file_is_named(tmp_path):
    refused(lambda: read_idx(tmp_path / "nowhere"), tmp_path / "nowhere", "does not exist")


@pytest.mark.parametrize(
    "style", [{}, {"suffix": ".gz"}, {"dotted": True}, {"dotted": True, "suffix": ".gz"}]
)
def test_an_mnist_folder_comes_back(tmp_path, style):
    write_idx_folder(tmp_path, **style)
    (tmp_path / "train-images-notes.txt").write_text("not one of the four")
    images = read_idx_folder(tmp_path)
    np.testing.assert_array_equal(images.train_images, IMAGES)
    np.testing.assert_array_equal(images.train_labels, LABELS)
    np.testing.assert_array_equal(images.test_images, IMAGES[1:3])
    np.testing.assert_array_equal(images.test_labels, LABELS[1:3])


def test_an_mnist_folder_without_one_of_the_four_says_which(tmp_path):
    write_idx_folder(tmp_path, t10k_labels=None)
    message = refused(lambda: read_idx_folder(tmp_path), tmp_path)
    assert "for test_labels:" in message


def test_images_where_labels_should_be_are_refused(tmp_path):
    write_idx_folder(tmp_path, train_labels=idx_bytes(IMAGES))
    refused(
        lambda: read_idx_folder(tmp_path),
        tmp_path / "train-labels-idx1-ubyte", "whole labels along one axis",
    )  # fmt: skip


def test_a_cifar_batch_comes_back_channel_by_channel(tmp_path):
    images, labels = some_cifar(0, 3)
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(cifar_bytes(images, labels))
    read_images, read_labels = read_cifar_batch(path)
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)
    # The format's own words: label, then 1024 reds, 1024 greens, 1024 blues, row by row.
    content = path.read_bytes()
    assert read_images[1, 2, 5, 7] == content[3073 + 1 + 2 * 1024 + 5 * 32 + 7]


@pytest.mark.parametrize("kept", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_a_cifar_batch_cut_short_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(cifar_bytes(*some_cifar(1, 2))[:kept])
    refused(lambda: read_cifar_batch(path), path, "truncated", f"{kept} bytes")


def test_a_label_above_nine_is_not_cifar_10(tmp_path):
    images, labels = some_cifar(2, 4)
    labels[2] = 10
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(cifar_bytes(images, labels))
    refused(lambda: read_cifar_batch(path), path, "record 2 has label 10")


def write_cifar_folder(folder, numbers, test=True):
    for number in numbers:
        content = cifar_bytes(*some_cifar(number, 2))
        (folder / f"data_batch_{number}.bin").write_bytes(content)
    if test:
        (folder / "test_batch.bin").write_bytes(cifar_bytes(*some_cifar(99, 3)))


def test_a_cifar_folder_joins_its_batches_in_the_order_of_their_numbers(tmp_path):
    write_cifar_folder(tmp_path, range(1, 12))
    (tmp_path / "batches.meta.txt").write_text("airplane")
    images = read_cifar_folder(tmp_path)
    expected = np.concatenate([some_cifar(number, 2)[0] for number in range(1, 12)])
    np.testing.assert_array_equal(images.train_images, expected)
    np.testing.assert_array_equal(images.test_labels, some_cifar(99, 3)[1])


def test_cifar_folders_with_something_missing_say_what(tmp_path):
    refused(lambda: read_cifar_folder(tmp_path), tmp_path, "data_batch_1.bin")
    write_cifar_folder(tmp_path, [1, 3], test=False)
    refused(lambda: read_cifar_folder(tmp_path), "data_batch_2.bin", "data_batch_3.bin")
    write_cifar_folder(tmp_path, [2], test=False)
    refused(lambda: read_cifar_folder(tmp_path), tmp_path / "test_batch.bin", "does not exist")


def test_the_pickled_cifar_is_never_unpickled(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04boom")
    refused(lambda: read_cifar_folder(tmp_path), tmp_path, "never unpickled")
