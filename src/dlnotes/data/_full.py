"""The full-scale sets, read from the downloaded files."""

import gzip
import hashlib
import math
import tarfile
from collections.abc import Callable

import numpy as np

from dlnotes.data import _catalogue
from dlnotes.data._bundled import DIGITS, FASHION
from dlnotes.data._catalogue import CorruptFileError, Remote
from dlnotes.data._download import fetch
from dlnotes.data._records import LabelledDataset, Split

CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def load_full(name: str) -> LabelledDataset:
    """Return the full-scale form of a data set; downloads it when it is not in the cache."""
    entry = _catalogue.entry(name)
    if not entry.full:
        have = ", ".join(each.name for each in _catalogue.entries().values() if each.full)
        raise ValueError(f"{name!r} has no full-scale form; these have one: {have}")
    return READERS[name](name, entry.full)


def _idx(remote: Remote) -> np.ndarray:
    """Read one gzip-compressed IDX file of bytes: magic, sizes (big-endian), values."""
    with gzip.open(fetch(remote), "rb") as stream:
        content = stream.read()
    if remote.sha256_unpacked:
        found = hashlib.sha256(content).hexdigest()
        if found != remote.sha256_unpacked:
            raise CorruptFileError(
                f"the content of {remote.name} is damaged: its SHA-256 should be "
                f"{remote.sha256_unpacked} but is {found}"
            )
    # Two zero bytes, the type (8: unsigned byte), the number of axes, then one size per axis.
    if content[:3] != b"\x00\x00\x08":
        raise CorruptFileError(f"{remote.name} is not an IDX file of bytes")
    axes = content[3]
    shape = tuple(np.frombuffer(content, dtype=">u4", count=axes, offset=4).astype(int).tolist())
    begin = 4 + 4 * axes
    if len(content) - begin != math.prod(shape):
        raise CorruptFileError(f"{remote.name} does not hold the {shape} values that it announces")
    return np.frombuffer(content, dtype=np.uint8, offset=begin).reshape(shape).copy()


def _mnist_like(name: str, remotes: tuple[Remote, ...], classes: tuple) -> LabelledDataset:
    x_train, y_train, x_test, y_test = (_idx(remote) for remote in remotes)
    return LabelledDataset(
        name=name,
        train=Split(x_train, y_train.astype(np.int64)),
        test=Split(x_test, y_test.astype(np.int64)),
        classes=classes,
        train_index=np.arange(len(x_train)),
        test_index=np.arange(len(x_test)),
    )


def _mnist(name: str, remotes: tuple[Remote, ...]) -> LabelledDataset:
    return _mnist_like(name, remotes, DIGITS)


def _fashion_mnist(name: str, remotes: tuple[Remote, ...]) -> LabelledDataset:
    return _mnist_like(name, remotes, FASHION)


def _cifar10(name: str, remotes: tuple[Remote, ...]) -> LabelledDataset:
    """Read the binary version: records of one label byte and 3 × 32 × 32 bytes, no pickles."""
    parts = {}
    with tarfile.open(fetch(remotes[0]), "r:gz") as archive:
        for member in archive:
            file = member.name.rpartition("/")[2]
            if member.isfile() and file.endswith(".bin"):
                raw = np.frombuffer(archive.extractfile(member).read(), dtype=np.uint8)
                parts[file] = raw.reshape(-1, 1 + 3 * 32 * 32)
    train = np.concatenate([parts[f"data_batch_{i}.bin"] for i in range(1, 6)])
    return LabelledDataset(
        name=name,
        train=_cifar_split(train),
        test=_cifar_split(parts["test_batch.bin"]),
        classes=CIFAR10,
        train_index=np.arange(len(train)),
        test_index=np.arange(len(parts["test_batch.bin"])),
    )


def _cifar_split(records: np.ndarray) -> Split:
    """Turn records into images (n, 32, 32, 3) and labels (n,)."""
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), records[:, 0].astype(np.int64))


READERS: dict[str, Callable[[str, tuple[Remote, ...]], LabelledDataset]] = {
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar10,
}
