"""Batches: PyTorch's `TensorDataset`, `Subset`, `random_split` and `DataLoader`, on arrays."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import dlnotes.random
from dlnotes import _validate


class TensorDataset:
    """Arrays of equal length, indexed together, as `torch.utils.data.TensorDataset`.

    An index may be an integer, a slice, or an array of integers; the result is a tuple with
    one entry per array. `TensorDataset(*split)` takes a `Split`.

    Raises TypeError for something that is not an array and ValueError for unequal lengths.
    """

    def __init__(self, *tensors: np.ndarray):
        _check_arrays(tensors)
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Any) -> tuple:
        return tuple(tensor[index] for tensor in self.tensors)

    def __getitems__(self, indices: np.ndarray) -> tuple:
        """Return a whole batch in one step (`DataLoader` asks for it where it exists)."""
        return self[indices]


class Subset:
    """The samples `indices` of `dataset`, as `torch.utils.data.Subset`."""

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray):
        indices = np.asarray(indices)
        if indices.size == 0:
            indices = indices.astype(np.int64)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise TypeError(
                f"indices must be a sequence of integers, got {indices.dtype} {indices.shape}"
            )
        length = len(dataset)
        if indices.size and not (indices.min() >= -length and indices.max() < length):
            raise ValueError(
                f"indices must lie below the {length} samples of the data set, "
                f"got {indices.min()} … {indices.max()}"
            )
        self.dataset = dataset
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: np.ndarray) -> tuple:
        """Return a whole batch in one step."""
        return _fetch(self.dataset, self.indices[indices])


def random_split(
    dataset: Any,
    lengths: Sequence[int | float],
    generator: np.random.Generator | None = None,
) -> list[Subset]:
    """Split at random into subsets that do not overlap, as `torch.utils.data.random_split`.

    `lengths` are counts that add up to `len(dataset)` or fractions that add up to 1; of
    fractions the remainder goes, one sample each, to the first parts. The permutation is drawn
    from `generator`, or from `dlnotes.random.generator()`.

    Raises ValueError when the lengths do not add up.
    """
    total = len(dataset)
    if all(isinstance(length, int | np.integer) for length in lengths):
        counts = [int(length) for length in lengths]
    else:
        if any(not 0 <= length <= 1 for length in lengths):
            raise ValueError(f"lengths given as fractions must be in [0, 1], got {list(lengths)}")
        if not math.isclose(sum(lengths), 1):
            raise ValueError(f"lengths given as fractions must add up to 1, got {sum(lengths)}")
        counts = [math.floor(total * length) for length in lengths]
        for part in range(total - sum(counts)):
            counts[part % len(counts)] += 1
    if any(count < 0 for count in counts) or sum(counts) != total:
        raise ValueError(f"lengths must add up to the {total} samples, got {counts}")
    order = _generator(generator).permutation(total)
    ends = np.cumsum(counts)
    return [
        Subset(dataset, order[end - count : end]) for end, count in zip(ends, counts, strict=True)
    ]


def train_test_split(
    *arrays: np.ndarray,
    test_size: float | int = 0.25,
    seed: int | None = 0,
    stratify: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Shuffle and split arrays alike; return `[a_train, a_test, b_train, b_test, …]`.

    `test_size` is a fraction in (0, 1), rounded up to whole samples, or a count. With
    `stratify=labels` every class keeps its share in both parts, to within one sample. The same
    `seed` gives the same split; `seed=None` draws from `dlnotes.random.generator()`.

    Raises TypeError and ValueError for arrays of unequal length, an impossible `test_size`, or
    a class with fewer than two samples when stratified.
    """
    _check_arrays(arrays)
    total = len(arrays[0])
    if isinstance(test_size, bool) or not isinstance(test_size, int | float | np.number):
        raise TypeError(f"test_size must be a fraction or a count, got {test_size!r}")
    fraction = not isinstance(test_size, int | np.integer)
    if fraction and not 0 < test_size < 1:
        raise ValueError(f"test_size as a fraction must be in (0, 1), got {test_size}")
    tests = math.ceil(total * test_size) if fraction else int(test_size)
    if not 0 < tests < total:
        raise ValueError(
            f"test_size leaves {tests} of {total} samples for the test; "
            "both parts need at least one"
        )
    generator = np.random.default_rng(seed) if seed is not None else dlnotes.random.generator()
    order = generator.permutation(total)
    if stratify is None:
        test, train = order[:tests], order[tests:]
    else:
        stratify = np.asarray(stratify)
        if stratify.shape != (total,):
            raise ValueError(f"stratify must have shape ({total},), got {stratify.shape}")
        test, train = _stratified(order, stratify, tests)
    return [part for array in arrays for part in (array[train], array[test])]


def _stratified(order: np.ndarray, labels: np.ndarray, tests: int) -> tuple[np.ndarray, np.ndarray]:
    """Deal `tests` places to the classes in proportion, the largest remainders first."""
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        scarce = classes[counts.argmin()]
        raise ValueError(f"stratify needs two samples of every class; class {scarce!r} has one")
    if tests < len(classes) or len(labels) - tests < len(classes):
        raise ValueError(
            f"stratify needs a place for each of the {len(classes)} classes in both parts, "
            f"but test_size makes parts of {len(labels) - tests} and {tests}"
        )
    ideal = counts * tests / len(labels)
    quota = np.floor(ideal).astype(int)
    by_remainder = np.argsort(quota - ideal, kind="stable")
    quota[by_remainder[: tests - quota.sum()]] += 1
    shuffled = inverse[order]
    in_test = np.zeros(len(labels), dtype=bool)
    for label, places in enumerate(quota):
        in_test[np.flatnonzero(shuffled == label)[:places]] = True
    return order[in_test], order[~in_test]


class DataLoader:
    """Iterate over a data set in batches; names and meaning as `torch.utils.data.DataLoader`.

    Each batch is a tuple of arrays (the samples stacked along a new first axis). `dataset` is
    anything with `len` and integer indexing. With `shuffle=True` every pass draws one new
    permutation from `generator`, or from `dlnotes.random.generator()` as it is when the pass
    begins; nothing else is ever drawn, so the same state gives the same batches. The last batch
    may be smaller unless `drop_last=True`.

    For an exact resume, `state_dict()` remembers the pass under way and the batches it has
    yielded; after `load_state_dict` the next pass yields the rest of it.

    Raises TypeError and ValueError for a batch size that is not a positive integer, or a
    generator that is not a `numpy.random.Generator`.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        generator: np.random.Generator | None = None,
    ):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise TypeError(
                "dataset must have a length and integer indexing (TensorDataset(x, y) makes one), "
                f"got {type(dataset).__name__}"
            )
        if isinstance(dataset, tuple):
            raise TypeError(
                "dataset must not be a tuple of arrays: write DataLoader(TensorDataset(*arrays))"
            )
        for name, flag in (("shuffle", shuffle), ("drop_last", drop_last)):
            if not isinstance(flag, bool | np.bool_):
                raise TypeError(f"{name} must be a bool, got {type(flag).__name__}")
        if generator is not None:
            _generator(generator)
        self.dataset = dataset
        self.batch_size = _validate.integer("batch_size", batch_size, low=1)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.generator = generator
        self._start_state: dict | None = None
        self._yielded = 0
        self._resume: dict | None = None

    def __len__(self) -> int:
        """Return the number of batches of one pass."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[tuple]:
        # The permutation is drawn here, before the first batch is asked for, as torch does.
        skip = 0
        generator = _generator(self.generator)
        if self._resume is not None:
            skip = self._resume["yielded"]
            start = self._resume["start"]
            self._resume = None
            if start is not None:
                # The generator itself has moved on since that pass began: use a second one.
                generator = _generator_from(start)
        self._start_state = copy.deepcopy(generator.bit_generator.state) if self.shuffle else None
        self._yielded = skip
        total = len(self.dataset)
        order = generator.permutation(total) if self.shuffle else np.arange(total)
        return self._batches(order, skip)

    def _batches(self, order: np.ndarray, skip: int) -> Iterator[tuple]:
        for batch in range(skip, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            # Counted before it is handed out: a state taken in the loop's body includes it.
            self._yielded = batch + 1
            yield _fetch(self.dataset, chosen)
        self._yielded = 0
        self._start_state = None

    def state_dict(self) -> dict:
        """Return, as plain values, which pass is under way and how far it has come.

        Between passes it says so. A private `generator` is included; the state of
        `dlnotes.random` is not: save `dlnotes.random.get_state()` beside it.
        """
        own = None if self.generator is None else self.generator.bit_generator.state
        pending = self._resume or {"start": self._start_state, "yielded": self._yielded}
        return copy.deepcopy({**pending, "generator": own})

    def load_state_dict(self, state: dict) -> None:
        """Continue, in the next pass, where `state_dict` was taken.

        Raises ValueError when the state cannot belong to this loader.
        """
        missing = {"start", "yielded", "generator"} - set(state)
        if missing:
            raise ValueError(f"state lacks {', '.join(sorted(missing))}")
        if not 0 <= state["yielded"] <= len(self):
            raise ValueError(
                f"state is {state['yielded']} batches into a pass, this loader has {len(self)}"
            )
        if (state["generator"] is None) != (self.generator is None):
            raise ValueError(
                "state and loader must agree on whether the loader has its own generator"
            )
        if self.generator is not None:
            self.generator.bit_generator.state = copy.deepcopy(state["generator"])
        under_way = state["yielded"] > 0 or state["start"] is not None
        self._resume = (
            {"start": copy.deepcopy(state["start"]), "yielded": state["yielded"]}
            if under_way
            else None
        )
        self._start_state, self._yielded = None, 0


def _generator(given: np.random.Generator | None) -> np.random.Generator:
    """Return the given generator, or dlnotes' own as it is now."""
    if given is None:
        return dlnotes.random.generator()
    return _validate.generator("generator", given)


def _generator_from(state: dict) -> np.random.Generator:
    """Return a new generator in the state `state`."""
    bit_generator = getattr(np.random, state["bit_generator"])()
    bit_generator.state = state
    return np.random.Generator(bit_generator)


def _fetch(dataset: Any, indices: np.ndarray) -> tuple:
    """Return the samples `indices` as one batch: a tuple of arrays."""
    if hasattr(dataset, "__getitems__"):
        return dataset.__getitems__(indices)
    samples = [dataset[int(index)] for index in indices]
    if not isinstance(samples[0], tuple | list):
        samples = [(sample,) for sample in samples]
    columns = zip(*samples, strict=True)
    return tuple(np.stack([np.asarray(value) for value in column]) for column in columns)


def _check_arrays(arrays: tuple) -> None:
    """Require one or more arrays of the same length."""
    if not arrays:
        raise ValueError("arrays must be one array or more, got none")
    for position, array in enumerate(arrays):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"array {position} must be a numpy.ndarray, got {type(array).__name__}")
        if array.ndim == 0:
            raise ValueError(f"array {position} must have at least one axis, got a scalar")
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"arrays must be equally long, got lengths {lengths}")
