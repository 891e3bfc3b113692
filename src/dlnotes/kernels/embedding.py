"""Tables of vectors: one-hot codes, embedding, embedding bags, and the scatter-add behind them.

An embedding is the product of one-hot codes with a table, computed by looking rows up. Its gradient
adds the gradient of each place to the row that was looked up there, so rows that occur twice get
two: `scatter_add`. Names, arguments and values are those of torch.nn.functional, dense gradients
only.

In each: TypeError for indices that are not integers and tables that are not float32 or float64,
ValueError for indices out of range (negative ones do not count from the end) and shapes that do not
fit.

Cost: n · d numbers are read and written for n indices into a table of rows of length d; the
gradient of a table has rows · d more to set to 0. (Tables of word vectors, trained with the
network: Bengio, Ducharme, Vincent and Jauvin, 2003.)
"""

import numpy as np
from jaxtyping import Float, Integer

from dlnotes import _validate
from dlnotes._validate import Number


def one_hot(
    labels: Integer[np.ndarray, "*shape"], num_classes: int = -1
) -> Integer[np.ndarray, "*shape classes"]:
    """Return int64 rows that are 1 at the label and 0 elsewhere; -1 takes the largest label + 1.

    labels: integers from 0; rows (…, num_classes). ValueError for a label that is not below
    num_classes, or -1 without labels.
    """
    classes = _validate.integer("num_classes", num_classes, low=-1)
    if classes == -1:
        if isinstance(labels, np.ndarray) and not labels.size:
            raise ValueError("num_classes must be given for an empty array of labels, got -1")
        labels = _indices("labels", labels, None)
        classes = int(labels.max()) + 1
    labels = _indices("labels", labels, classes)
    rows = np.zeros((*labels.shape, classes), np.int64)
    np.put_along_axis(rows, labels[..., None], 1, axis=-1)
    return rows


def scatter_add(
    values: Float[np.ndarray, "n d"], indices: Integer[np.ndarray, " n"], size: int
) -> Float[np.ndarray, "size d"]:
    """Return (size, d) zeros to which row values[i] is added at row indices[i], for every i.

    One pass over the values, several times as fast as `np.add.at`.
    """
    values, indices, size = _scatter_arguments(values, indices, size)
    n = len(indices)
    return add_up(np.ones(n, values.dtype), indices, np.arange(n + 1), values, size)


def scatter_add_loops(
    values: Float[np.ndarray, "n d"], indices: Integer[np.ndarray, " n"], size: int
) -> Float[np.ndarray, "size d"]:
    """Return what `scatter_add` returns, row by row: the definition, and the tests' oracle."""
    values, indices, size = _scatter_arguments(values, indices, size)
    result = np.zeros((size, values.shape[1]), values.dtype)
    for value, index in zip(values, indices, strict=True):
        result[index] += value
    return result


def embedding(
    input: Integer[np.ndarray, "*shape"],
    weight: Float[np.ndarray, "rows d"],
    padding_idx: int | None = None,
    *,
    scale_grad_by_freq: bool = False,
) -> Float[np.ndarray, "*shape d"]:
    """Return the rows weight[input]: (…) → (…, d).

    `padding_idx` (negative counts from the end) and `scale_grad_by_freq` change the gradient only.

    input: integers in 0 … rows - 1; weight: (rows, d).
    """
    input, weight, _ = _lookup(input, weight, padding_idx)
    return _rows(weight, input)


def embedding_backward(
    dy: Float[np.ndarray, "*shape d"],
    input: Integer[np.ndarray, "*shape"],
    weight: Float[np.ndarray, "rows d"],
    padding_idx: int | None = None,
    *,
    scale_grad_by_freq: bool = False,
) -> Float[np.ndarray, "rows d"]:
    """Return dweight: dy added up row by row of the table, and nothing at `padding_idx`.

    With `scale_grad_by_freq`, each row's gradient is divided by how often it occurs in `input`.
    """
    input, weight, padding = _lookup(input, weight, padding_idx)
    dy = _upstream(dy, weight, (*input.shape, weight.shape[1]))
    flat = input.reshape(-1)
    dweight = scatter_add(dy.reshape(len(flat), weight.shape[1]), flat, len(weight))
    if scale_grad_by_freq:
        counts = np.bincount(flat, minlength=len(weight)).astype(weight.dtype)
        dweight /= np.maximum(counts, 1)[:, None]
    if padding is not None:
        dweight[padding] = 0
    return dweight


def embedding_renorm(
    weight: Float[np.ndarray, "rows d"],
    input: Integer[np.ndarray, "*shape"],
    max_norm: Number,
    norm_type: Number = 2.0,
) -> None:
    """Cut the rows that `input` names down to the norm `max_norm`, in place, where they are longer.

    As in torch they come out shorter by a factor of 1e-7 / norm. weight: (rows, d), changed;
    norm_type: the order of the norm, at least 1; max_norm: at least 0.
    """
    input, weight, _ = _lookup(input, weight, None)
    if not weight.flags.writeable:
        raise ValueError("weight is changed in place, so it must be a writable array")
    max_norm, norm_type = (
        _validate.number("max_norm", max_norm, low=0),
        _validate.number("norm_type", norm_type, low=1),
    )
    rows = np.unique(input)
    with np.errstate(over="ignore", invalid="ignore"):  # ∞ becomes NaN, as in torch
        norms = np.linalg.norm(weight[rows], norm_type, axis=1)
        long = norms > max_norm
        weight[rows[long]] *= (max_norm / (norms[long] + 1e-7)).astype(weight.dtype)[:, None]


def embedding_bag(
    input: Integer[np.ndarray, "*shape"],
    weight: Float[np.ndarray, "rows d"],
    offsets: Integer[np.ndarray, " starts"] | None = None,
    *,
    mode: str = "mean",
    per_sample_weights: Float[np.ndarray, "*shape"] | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Float[np.ndarray, "bags d"]:
    """Return the sum, mean or largest entries of the rows of each bag of indices.

    input: (bags, length), or (n,) with `offsets` (bags,), where each bag starts (and, with
    include_last_offset, where the last one ends). `per_sample_weights`, of input's shape, multiply
    the rows (mode "sum" only). Places that hold `padding_idx` are left out; an empty bag gives 0.
    weight: (rows, d).
    """
    bags = _Bags(input, weight, per_sample_weights, offsets, mode, padding_idx, include_last_offset)
    rows = _rows(bags.weight, bags.input)
    if mode == "max":
        return bags.largest(rows)[0]
    if bags.samples is not None:
        rows *= bags.samples[:, None]
    result = scatter_add(rows, bags.bag, bags.count)
    if mode == "mean":
        result /= np.maximum(bags.sizes, 1).astype(rows.dtype)[:, None]
    return result


def embedding_bag_backward(
    dy: Float[np.ndarray, "bags d"],
    input: Integer[np.ndarray, "*shape"],
    weight: Float[np.ndarray, "rows d"],
    offsets: Integer[np.ndarray, " starts"] | None = None,
    *,
    mode: str = "mean",
    per_sample_weights: Float[np.ndarray, "*shape"] | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Float[np.ndarray, "rows d"], Float[np.ndarray, "*shape"] | None]:
    """Return (dweight, dper_sample_weights | None); the first of equal largest entries has all."""
    bags = _Bags(input, weight, per_sample_weights, offsets, mode, padding_idx, include_last_offset)
    weight = bags.weight
    dy = _upstream(dy, weight, (bags.count, weight.shape[1]))
    if mode == "mean":
        dy = dy / np.maximum(bags.sizes, 1).astype(dy.dtype)[:, None]
    drows = dy[bags.bag]
    if mode == "max":
        _, first = bags.largest(_rows(weight, bags.input))
        drows *= first[bags.bag] == np.arange(len(bags.input))[:, None]
    dsamples = None
    if bags.samples is not None:
        dsamples = np.zeros(np.shape(per_sample_weights), dy.dtype)
        kept = np.einsum("nd,nd->n", drows, _rows(weight, bags.input))
        dsamples.reshape(-1)[bags.kept] = kept
        drows *= bags.samples[:, None]
    return scatter_add(drows, bags.input, len(weight)), dsamples


class _Bags:
    """The checked arguments of embedding_bag, as one flat list of indices without padding."""

    def __init__(self, input, weight, samples, offsets, mode, padding_idx, include_last_offset):
        _validate.one_of("mode", mode, ["sum", "mean", "max"])
        input, self.weight, padding = _lookup(input, weight, padding_idx)
        starts = self._starts(input, offsets, include_last_offset)
        self.count = len(starts) - 1
        if samples is not None:
            if mode != "sum":
                raise ValueError(f'per_sample_weights need mode="sum", got {mode!r}')
            samples = _validate.floats("per_sample_weights", samples)
            _validate.same_dtype(weight=self.weight, per_sample_weights=samples)
            _validate.has_shape("per_sample_weights", samples, input.shape, "the shape of input")
        flat = input.reshape(-1)
        bag = np.repeat(np.arange(self.count), np.diff(starts))
        self.kept = np.flatnonzero(flat != padding) if padding is not None else np.arange(len(flat))
        self.input, self.bag = flat[self.kept], bag[self.kept]
        self.samples = None if samples is None else samples.reshape(-1)[self.kept]
        self.sizes = np.bincount(self.bag, minlength=self.count)

    @staticmethod
    def _starts(input, offsets, include_last_offset):
        """Return where each bag starts, and where the last one ends."""
        if input.ndim == 2:
            if offsets is not None:
                raise ValueError("offsets must be None when input has 2 axes, one row for each bag")
            return np.arange(input.shape[0] + 1) * input.shape[1]
        if input.ndim != 1 or offsets is None:
            raise ValueError(
                "input must have 2 axes, or 1 axis with offsets given, got shape "
                f"{input.shape} and offsets {'None' if offsets is None else 'given'}"
            )
        offsets = _indices("offsets", offsets, len(input) + 1)
        ends = [] if include_last_offset else [len(input)]
        starts = np.concatenate([offsets.astype(np.int64), np.array(ends, np.int64)])
        if (
            not len(starts)
            or starts[0] != 0
            or starts[-1] != len(input)
            or (np.diff(starts) < 0).any()
        ):
            raise ValueError(
                f"offsets must rise from 0{f' to {len(input)}' if include_last_offset else ''}, "
                f"got {offsets}"
            )
        return starts

    def largest(self, rows):
        """Return each bag's largest entries, column by column (0 if empty), and their places."""
        largest = np.zeros((self.count, rows.shape[1]), rows.dtype)
        first = np.full(largest.shape, -1)
        filled = np.flatnonzero(self.sizes)
        if len(filled):
            starts = np.cumsum(self.sizes)[filled] - self.sizes[filled]
            largest[filled] = np.maximum.reduceat(rows, starts, axis=0)
            place = np.arange(len(rows))[:, None]
            # The largest of numbers one of which is NaN is NaN, as for max-pooling.
            place = np.where((rows == largest[self.bag]) | np.isnan(rows), place, len(rows))
            first[filled] = np.minimum.reduceat(place, starts, axis=0)
        return largest, first


# ---- shared pieces ---------------------------------------------------------------------------


def add_up(weights, indices, starts, rows, size) -> np.ndarray:
    """Return (size, d) zeros to which `add_products` has added; nothing is checked."""
    result = np.zeros((size, rows.shape[1]), rows.dtype)
    add_products(result, weights, indices, starts, rows)
    return result


def add_products(table, weights, indices, starts, rows) -> None:
    """Add weights[j] · rows[i] to table[indices[j]], in place, for all j; nothing is checked.

    The weights (m,) and indices (m,) from starts[i] up to starts[i + 1] belong to rows[i] (n, d):
    a sparse matrix, stored column by column, times `rows`. SciPy's `@` would put the result into
    a new table of zeros; the function behind it adds to the table that is there.
    """
    from scipy.sparse._sparsetools import csc_matvecs  # imported here: it takes a tenth of a second

    flat = np.ascontiguousarray(table)  # the table itself, mostly
    places = (np.asarray(starts, np.int64), np.asarray(indices, np.int64))
    values = (np.ascontiguousarray(weights), np.ascontiguousarray(rows).reshape(-1))
    csc_matvecs(len(table), len(rows), table.shape[1], *places, *values, flat.reshape(-1))
    if flat is not table:
        table[...] = flat


def _rows(weight, indices):
    """Return weight[indices]; "clip" spares NumPy a second check of indices that are checked."""
    return np.take(weight, indices, axis=0, mode="clip")


# ---- arguments -------------------------------------------------------------------------------


def _indices(name, value, size) -> np.ndarray:
    """Return integers in 0 … size - 1 (any from 0, for None)."""
    if not isinstance(value, np.ndarray | np.integer):
        raise TypeError(f"{name} must be a NumPy array of integers, got {type(value).__name__}")
    if not np.issubdtype(value.dtype, np.integer):
        raise TypeError(f"{name} must hold integers, got {value.dtype}")
    value = np.asarray(value)
    if value.size and (value.min() < 0 or (size is not None and value.max() >= size)):
        bad = value < 0 if size is None else (value < 0) | (value >= size)
        allowed = "at least 0" if size is None else f"in 0 … {size - 1}"
        raise ValueError(f"{name} must be {allowed}, got {value[bad][0]}")
    # Below a limit all kinds fit into one: NumPy joins uint64 and int64 to floats.
    return value if size is None else value.astype(np.intp, copy=False)


def _lookup(input, weight, padding_idx):
    weight = _validate.floats("weight", weight, ndim=2)
    input = _indices("input", input, len(weight))
    if padding_idx is not None:
        padding_idx = _validate.integer(
            "padding_idx", padding_idx, low=-len(weight), high=len(weight) - 1
        ) % len(weight)
    return input, weight, padding_idx


def _upstream(dy, weight, shape):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, weight=weight)
    return _validate.has_shape("dy", dy, shape, "the shape of the output")


def _scatter_arguments(values, indices, size):
    values = _validate.floats("values", values, ndim=2)
    size = _validate.integer("size", size, low=0)
    indices = _indices("indices", indices, size)
    _validate.has_shape("indices", indices, values.shape[:1], "one for each row of values")
    return values, indices, size
