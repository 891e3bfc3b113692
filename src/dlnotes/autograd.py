"""Reverse-mode automatic differentiation: a tensor that remembers how it was computed.

The tape proper stands first: `apply` runs one operation and records it, `topological_order` sorts
what was recorded, and `Tensor.backward` walks it in reverse. Below them stand the operators of a
tensor and the table of operations, where the backward function of each is registered once.
(Reverse mode: Linnainmaa, 1970; backpropagation: Rumelhart, Hinton and Williams, 1986.)

Errors: TypeError for data that are not float32, float64, integers or bool, for two float dtypes in
one operation (nothing is converted unseen), and for settings of the wrong kind; ValueError for
shapes that do not fit, axes that are not there, an operation that is not registered or is already,
and a gradient that is missing or of another shape; IndexError for an index out of range;
RuntimeError for `backward` without a gradient to compute. Operations that are kernels raise what
the kernel does.

Cost: recording takes a constant time for each operation and keeps its inputs and its output until
the result is let go; `backward` runs each recorded operation's backward function once, for products
about twice the cost of forward. Operators and methods go over their entries once (`@` takes 2 ·
rows · inner · columns operations). Shapes are those of NumPy, with broadcasting in +, -, *, / and
`where`.
"""

import contextlib
import functools
import itertools
import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dlnotes import _validate, kernels

__all__ = [
    "OPERATIONS",
    "Operation",
    "Tensor",
    "apply",
    "cat",
    "no_grad",
    "register",
    "stack",
    "tensor",
    "topological_order",
    "where",
]


class Operation(NamedTuple):
    """How a value is computed, and how its gradient becomes those of the inputs."""

    forward: Callable  # (*inputs, **settings) → value, or (value, residuals) if it keeps any
    backward: Callable  # (dy, value, *inputs, **settings) → a gradient for each input
    keeps: bool = False  # backward is also given residuals=, what forward put aside for it
    selective: bool = False  # backward is also given output_mask=, which gradients are wanted


OPERATIONS: dict[str, Operation] = {}
_recording = True


def apply(op: str, *inputs, **settings) -> "Tensor":
    """Run the operation named `op` and record it if an input requires a gradient.

    `inputs` can be differentiated; `settings` are constants of the operation.
    """
    forward, backward, keeps, selective = OPERATIONS[_validate.one_of("op", op, OPERATIONS)]
    parents = tuple(x if isinstance(x, Tensor) else Tensor(x) for x in inputs)
    arrays = [parent.data for parent in parents]
    y = forward(*arrays, **settings)
    if keeps:
        y, settings["residuals"] = y
    y = np.asarray(y)
    result = Tensor(y)
    if _recording and any(parent.requires_grad for parent in parents):
        result.requires_grad, result.op, result.parents = True, op, parents
        result._pull_back = lambda dy, wanted: backward(
            dy, y, *arrays, **settings, **({"output_mask": wanted} if selective else {})
        )
    return result


def topological_order(tensor: "Tensor") -> list["Tensor"]:
    """Return all tensors that `tensor` was computed from, each after its parents, itself last.

    The order is built with a stack of our own: recursion would end at a thousand operations.
    """
    order, seen, stack = [], set(), [(tensor, False)]
    while stack:
        node, parents_are_in_order = stack.pop()
        if parents_are_in_order:
            order.append(node)
        elif node.requires_grad and node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    return order


def sum_to_shape(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return `gradient` summed over the axes along which an array of `shape` was broadcast.

    Broadcasting copies a value forward, so the gradients of the copies add up backward.
    """
    if gradient.shape == shape:
        return gradient
    new_axes = gradient.ndim - len(shape)
    stretched = [new_axes + i for i, n in enumerate(shape) if n == 1]
    summed = gradient.sum(axis=(*range(new_axes), *stretched), keepdims=True)
    return summed.reshape(shape)


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside a `with no_grad():` block (or a function decorated with it)."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


class Tensor:
    """An array, its gradient, and the operation and parents that it came from.

    `data` is shared, not copied (`tensor(…)` copies), and as in torch so is that of views: what
    `detach`, `permute`, `transpose`, slices and (where the layout allows it) `reshape` return, with
    all that is made of them (`flatten`, `squeeze`, `split`, …), shares memory with the tensor, so
    writing into the data of one changes the other. Python numbers become float32; arrays keep
    their dtype: float32, float64, integers or bool. Only floats can require a gradient.
    A leaf (`parents` empty) adds up its `grad` over calls of `backward` until `zero_grad()`; an
    inner node keeps the gradient of the last call, so that it can be looked at.
    """

    __array_ufunc__ = None  # so that array + tensor asks the tensor

    def __init__(self, data, requires_grad: bool = False):
        self.data: np.ndarray = _as_array(data)
        self.requires_grad = requires_grad
        self.grad: np.ndarray | None = None
        self.op = ""
        self.parents: tuple[Tensor, ...] = ()
        self._pull_back: Callable | None = None  # gradient → those of the parents
        if requires_grad and self.data.dtype not in _validate.FLOATS:
            raise TypeError(f"only float tensors can require a gradient, got {self.dtype}")

    def backward(self, gradient=None) -> None:
        """Add the derivative of this tensor with respect to each leaf to the leaf's `grad`.

        `gradient` is the derivative of the quantity of interest with respect to this tensor; it
        may be left out where this tensor has one element. RuntimeError if it needs no gradient.
        """
        gradients = {self: _first_gradient(self, gradient)}
        for node in reversed(topological_order(self)):
            # Every use of the node lies behind us, so its gradient is complete.
            dy = np.asarray(gradients.pop(node))
            if not node.parents:
                node.grad = dy.copy() if node.grad is None else np.asarray(node.grad + dy)
                continue
            node.grad = dy
            wanted = tuple(parent.requires_grad for parent in node.parents)
            for parent, dx in zip(node.parents, node._pull_back(dy, wanted), strict=True):
                if parent.requires_grad:
                    dx = sum_to_shape(np.asarray(dx), parent.shape)
                    gradients[parent] = gradients[parent] + dx if parent in gradients else dx

    # ---- the tape ends here; what follows is convenience -------------------------------------

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def detach(self) -> "Tensor":
        """Return a tensor that shares the data and has no history."""
        return Tensor(self.data)

    def numpy(self) -> np.ndarray:
        """Return the data; RuntimeError, as in torch, if a gradient is required (detach first)."""
        if self.requires_grad:
            raise RuntimeError("this tensor requires a gradient: use tensor.detach().numpy()")
        return self.data

    def item(self) -> float | int | bool:
        """Return the one element as a Python number; ValueError if there are more."""
        if self.data.size != 1:
            raise ValueError(f"item() needs one element, got shape {self.shape}")
        return self.data.item()

    # fmt: off
    shape = property(lambda self: self.data.shape, doc="The length of each axis.")
    dtype = property(lambda self: self.data.dtype, doc="The NumPy dtype of the data.")
    ndim = property(lambda self: self.data.ndim, doc="The number of axes.")
    T = property(lambda self: self.permute(*reversed(range(self.ndim))), doc="Axes reversed.")

    def __add__(self, other): return apply("add", *_operands(self, other))
    def __radd__(self, other): return apply("add", *_operands(other, self))
    def __sub__(self, other): return apply("sub", *_operands(self, other))
    def __rsub__(self, other): return apply("sub", *_operands(other, self))
    def __mul__(self, other): return apply("mul", *_operands(self, other))
    def __rmul__(self, other): return apply("mul", *_operands(other, self))
    def __truediv__(self, other): return apply("div", *_operands(self, other))
    def __rtruediv__(self, other): return apply("div", *_operands(other, self))
    def __matmul__(self, other): return apply("matmul", *_matrices(self, other))
    def __rmatmul__(self, other): return apply("matmul", *_matrices(other, self))
    def __pow__(self, exponent): return _power(self, exponent)
    def __rpow__(self, base): return apply("power", *_operands(base, self))
    def __neg__(self): return apply("neg", self)
    def __abs__(self): return apply("abs", self)
    def __getitem__(self, index): return apply("getitem", self, index=_index(index))
    def __lt__(self, other): return _compare(np.less, self, other)
    def __le__(self, other): return _compare(np.less_equal, self, other)
    def __gt__(self, other): return _compare(np.greater, self, other)
    def __ge__(self, other): return _compare(np.greater_equal, self, other)
    # fmt: on

    def abs(self) -> "Tensor":
        """Return |x|; the derivative at 0 is 0."""
        return apply("abs", self)

    def exp(self) -> "Tensor":
        """Return eˣ."""
        return apply("exp", self)

    def log(self) -> "Tensor":
        """Return the natural logarithm."""
        return apply("log", self)

    def sqrt(self) -> "Tensor":
        """Return the square root."""
        return apply("sqrt", self)

    def sin(self) -> "Tensor":
        """Return the sine."""
        return apply("sin", self)

    def cos(self) -> "Tensor":
        """Return the cosine."""
        return apply("cos", self)

    def tanh(self) -> "Tensor":
        """Return tanh x."""
        return apply("tanh", self)

    def sigmoid(self) -> "Tensor":
        """Return 1 / (1 + e⁻ˣ)."""
        return apply("sigmoid", self)

    def relu(self) -> "Tensor":
        """Return max(x, 0); the derivative at 0 is 0."""
        return apply("relu", self)

    def softmax(self, dim: int) -> "Tensor":
        """Return eˣ / Σ eˣ along `dim`."""
        return apply("softmax", self, dim=dim)

    def log_softmax(self, dim: int) -> "Tensor":
        """Return x - log Σ eˣ along `dim`."""
        return apply("log_softmax", self, dim=dim)

    def minimum(self, other) -> "Tensor":
        """Return the smaller of both, entry by entry; equal entries share the gradient."""
        return apply("minimum", *_operands(self, other))

    def maximum(self, other) -> "Tensor":
        """Return the larger of both, entry by entry; equal entries share the gradient."""
        return apply("maximum", *_operands(self, other))

    def sum(self, axis=None, keepdims=False, *, dim=None, keepdim=None) -> "Tensor":
        """Return the sum over `axis` (torch: `dim`), a number, a tuple, or None for all axes."""
        return apply("sum", self, **_axes(self, axis, keepdims, dim, keepdim))

    def mean(self, axis=None, keepdims=False, *, dim=None, keepdim=None) -> "Tensor":
        """Return the mean over `axis` (torch: `dim`), a number, a tuple, or None for all axes."""
        return apply("mean", self, **_axes(self, axis, keepdims, dim, keepdim))

    def max(self, axis=None, keepdims=False, *, dim=None, keepdim=None) -> "Tensor":
        """Return the maximum; ties share the gradient equally. Values only, as torch.amax."""
        return apply("max", self, **_axes(self, axis, keepdims, dim, keepdim))

    def min(self, axis=None, keepdims=False, *, dim=None, keepdim=None) -> "Tensor":
        """Return the minimum; ties share the gradient equally. Values only, as torch.amin."""
        return apply("min", self, **_axes(self, axis, keepdims, dim, keepdim))

    def var(
        self, axis=None, *, correction: _validate.Number = 1, keepdims=False, dim=None, keepdim=None
    ) -> "Tensor":
        """Return the variance, Σ (x - mean)² over the number of entries less `correction`.

        As in torch, correction=1 by default, which makes it unbiased; NumPy divides by the number.
        Infinite or NaN where there are no more entries than `correction`.
        """
        settings = _axes(self, axis, keepdims, dim, keepdim)
        return apply("var", self, correction=_validate.number("correction", correction), **settings)

    def std(
        self, axis=None, *, correction: _validate.Number = 1, keepdims=False, dim=None, keepdim=None
    ) -> "Tensor":
        """Return the root of `var`; its derivative is taken as 0 where all entries are equal."""
        settings = _axes(self, axis, keepdims, dim, keepdim)
        return apply("std", self, correction=_validate.number("correction", correction), **settings)

    def norm(self, p=2, dim=None, keepdim: bool = False) -> "Tensor":
        """Return (Σ |x|^p)^(1/p) along `dim`, an axis, a tuple, or None for all (p ≥ 0 or ∞)."""
        return apply("vector_norm", self, ord=p, dim=dim, keepdim=keepdim)

    def logsumexp(self, dim, keepdim: bool = False) -> "Tensor":
        """Return log Σ eˣ along `dim`, an axis or a tuple, without overflow."""
        return apply("logsumexp", self, dim=dim, keepdim=keepdim)

    def cumsum(self, dim: int) -> "Tensor":
        """Return the sums of the entries so far along `dim`."""
        return apply("cumsum", self, dim=_validate.dimension("dim", dim, self.ndim))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> "Tensor":
        """Return, as int64, where the largest entry lies along `dim`, on ties the first.

        Without `dim`, its place in the flattened tensor. ValueError where there are no entries.
        """
        return self._place(np.argmax, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> "Tensor":
        """Return, as int64, where the smallest entry lies, as `argmax`."""
        return self._place(np.argmin, dim, keepdim)

    def _place(self, function: Callable, dim, keepdim) -> "Tensor":
        axis = None if dim is None else _validate.dimension("dim", dim, self.ndim)
        if not (self.data.size if axis is None else self.shape[axis]):
            raise ValueError(f"there must be entries to choose from, got shape {self.shape}")
        return Tensor(np.asarray(function(self.data, axis=axis, keepdims=keepdim), np.int64))

    def topk(
        self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
    ) -> tuple["Tensor", "Tensor"]:
        """Return (values, indices) of the k largest (or smallest) entries along `dim`.

        They always stand in order, the best first, equal ones as they stood; NaN counts as the
        largest. indices are int64. Cost O(n log n) for n entries along the axis.
        """
        dim = _validate.dimension("dim", dim, self.ndim)
        k = _validate.integer("k", k, low=0, high=self.shape[dim])
        # Reversed twice, so that descending order keeps equal entries in theirs.
        x = np.flip(self.data, dim) if largest else self.data
        order = np.argsort(x, axis=dim, kind="stable")
        order = self.shape[dim] - 1 - np.flip(order, dim) if largest else order
        indices = order.take(np.arange(k), axis=dim).astype(np.int64)
        return self.gather(dim, indices), Tensor(indices)

    def gather(self, dim: int, index) -> "Tensor":
        """Return y with y[i, j, …] = x[index[i, j, …], j, …] for dim=0, and so on.

        `index`, integers from 0 on, has as many axes as x and is no longer than x along the others.
        """
        dim = _validate.dimension("dim", dim, self.ndim)
        return apply("gather", self, dim=dim, index=_gathered(self, dim, index))

    def reshape(self, *shape) -> "Tensor":
        """Return the same elements with another shape; one length may be -1."""
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        shape = tuple(_validate.integer("shape", n, low=-1) for n in shape)
        known = math.prod(n for n in shape if n != -1)
        if shape.count(-1) > 1:
            raise ValueError(f"shape may have one length of -1, got {shape}")
        if self.data.size % known if known and -1 in shape else self.data.size != known:
            raise ValueError(
                f"shape must hold the {self.data.size} elements of {self.shape}, got {shape}"
            )
        return apply("reshape", self, shape=shape)

    def view(self, *shape) -> "Tensor":
        """Do as `reshape` does; unlike torch's, this also copies where the layout makes it."""
        return self.reshape(*shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Tensor":
        """Return the tensor with the axes start_dim … end_dim joined into one."""
        if not self.ndim:
            return self.reshape(1)
        start = _validate.dimension("start_dim", start_dim, self.ndim)
        end = _validate.dimension("end_dim", end_dim, self.ndim)
        if start > end:
            raise ValueError(f"start_dim must not come after end_dim, got {start} and {end}")
        joined = math.prod(self.shape[start : end + 1])
        return self.reshape(*self.shape[:start], joined, *self.shape[end + 1 :])

    def unsqueeze(self, dim: int) -> "Tensor":
        """Return the tensor with an axis of length 1 put in at `dim`."""
        dim = _validate.dimension("dim", dim, self.ndim + 1)
        return self.reshape(*self.shape[:dim], 1, *self.shape[dim:])

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> "Tensor":
        """Return the tensor without its axes of length 1: all of them, or those among `dim`."""
        dims = range(self.ndim) if dim is None else dim if isinstance(dim, tuple | list) else (dim,)
        dims = [_validate.dimension("dim", one, self.ndim) for one in dims]
        return self.reshape([n for i, n in enumerate(self.shape) if n != 1 or i not in dims])

    def expand(self, *sizes) -> "Tensor":
        """Return a view, not to be written to, whose axes of length 1 are stretched to `sizes`.

        -1 leaves an axis as it is; axes may be added in front.
        """
        sizes = _sizes(sizes, self.ndim)
        old = (*[1] * (len(sizes) - self.ndim), *self.shape)
        new = tuple(n if size == -1 else size for n, size in zip(old, sizes, strict=True))
        if any(n not in (1, size) for n, size in zip(old, new, strict=True)):
            raise ValueError(f"sizes must agree with shape {self.shape} or stretch 1s, got {sizes}")
        return apply("expand", self, sizes=new)

    def repeat(self, *repeats) -> "Tensor":
        """Return copies side by side, repeats[i] of them along axis i; axes may be added."""
        repeats = _sizes(repeats, self.ndim)
        return apply("repeat", self, repeats=repeats)

    def size(self, dim: int | None = None) -> tuple[int, ...] | int:
        """Return the shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[_validate.dimension("dim", dim, self.ndim)]

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple["Tensor", ...]:
        """Return pieces along `dim` of `split_size` each (the last may be smaller), or of sizes."""
        n = self.size(dim := _validate.dimension("dim", dim, self.ndim))
        if isinstance(split_size, tuple | list):
            sizes = [_validate.integer("split_size", size, low=0) for size in split_size]
            if sum(sizes) != n:
                raise ValueError(f"split_size must add up to axis {dim}'s {n}, got {split_size}")
        else:
            size = _validate.integer("split_size", split_size, low=1)
            sizes = [size] * (n // size) + [n % size] * (n % size > 0 or n == 0)
        ends = list(itertools.accumulate(sizes))
        axes = (slice(None),) * dim
        return tuple(self[*axes, end - size : end] for end, size in zip(ends, sizes, strict=True))

    def chunk(self, chunks: int, dim: int = 0) -> tuple["Tensor", ...]:
        """Return at most `chunks` pieces along `dim`, all but the last of one size."""
        n = self.size(dim)
        chunks = _validate.integer("chunks", chunks, low=1)
        return self.split(-(-n // chunks) if n else [0] * chunks, dim)

    def masked_fill(self, mask, value) -> "Tensor":
        """Return the tensor with `value`, one number, wherever the bool `mask` is True."""
        if np.ndim(value.data if isinstance(value, Tensor) else value):
            raise ValueError("value must be one number, got an array")
        return where(mask, value, self)

    def clamp(self, min=None, max=None) -> "Tensor":
        """Return the entries, those below `min` or above `max` (numbers or None) moved there.

        The derivative is 1 from min to max, both included, and 0 outside.
        """
        if min is None and max is None:
            raise ValueError("min or max must be given, got None for both")
        return apply("clamp", self, min=_bound("min", min), max=_bound("max", max))

    def transpose(self, dim0: int, dim1: int) -> "Tensor":
        """Return the tensor with two axes exchanged, as torch does."""
        order = list(range(self.ndim))
        dim0 = _validate.dimension("dim0", dim0, self.ndim)
        dim1 = _validate.dimension("dim1", dim1, self.ndim)
        order[dim0], order[dim1] = dim1, dim0
        return self.permute(*order)

    def permute(self, *dims) -> "Tensor":
        """Return the tensor with its axes in the order `dims`."""
        dims = dims[0] if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
        dims = tuple(_validate.dimension("dims", dim, self.ndim) for dim in dims)
        if sorted(dims) != list(range(self.ndim)):
            raise ValueError(f"dims must name each of the {self.ndim} axes once, got {dims}")
        return apply("permute", self, dims=dims)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.item())

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", precision=4, prefix="tensor(")
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        history = f", op={self.op!r}" if self.op else ", requires_grad=True"
        return f"tensor({text}{dtype}{history if self.requires_grad else ''})"


def tensor(data, requires_grad: bool = False) -> Tensor:
    """Return a new leaf tensor that holds a copy of `data` (number, nested list, array)."""
    return Tensor(np.array(_as_array(data)), requires_grad=requires_grad)


def cat(tensors: Sequence, dim: int = 0) -> Tensor:
    """Return the tensors one after another along `dim`; their other axes must agree."""
    tensors = _tensors(tensors)
    dim = _validate.dimension("dim", dim, tensors[0].ndim)
    if len({(*one.shape[:dim], *one.shape[dim + 1 :]) for one in tensors}) > 1 or any(
        one.ndim != tensors[0].ndim for one in tensors
    ):
        raise ValueError(f"tensors must agree in every axis but {dim}, got {_shapes(tensors)}")
    return apply("cat", *tensors, dim=dim)


def stack(tensors: Sequence, dim: int = 0) -> Tensor:
    """Return tensors of one shape side by side along a new axis `dim`."""
    tensors = _tensors(tensors)
    if len({one.shape for one in tensors}) > 1:
        raise ValueError(f"tensors must have one shape, got {_shapes(tensors)}")
    return apply("stack", *tensors, dim=_validate.dimension("dim", dim, tensors[0].ndim + 1))


def where(condition, input, other) -> Tensor:
    """Return `input` where the bool `condition` is True and `other` elsewhere; all broadcast."""
    condition = condition.data if isinstance(condition, Tensor) else np.asarray(condition)
    if condition.dtype != np.bool_:
        raise TypeError(f"the condition or mask must be bool, got {condition.dtype}")
    input, other = _operands(input, other)
    _check_broadcast(condition.shape, input.shape, other.shape)
    return apply("where", input, other, condition=condition)


# ---- the table of operations -----------------------------------------------------------------


def register(
    op: str, forward: Callable, backward: Callable, *, keeps: bool = False, selective: bool = False
) -> None:
    """Enter an operation; what the functions take and return stands at `Operation`.

    With `keeps`, forward returns its value and residuals, anything that backward needs besides
    the inputs and the value, and backward gets them as `residuals`. With `selective`, backward gets
    `output_mask`, which says for each input whether its gradient is wanted, and may return None for
    one that is not: for operations whose gradients cost more than the asking.

    Both functions then run without NumPy's warnings of overflow, division by 0 and NaN: as in
    torch, the result says it.
    """
    if op in OPERATIONS:
        raise ValueError(f"operation {op!r} is registered already")
    forward, backward = (np.errstate(all="ignore")(function) for function in (forward, backward))
    OPERATIONS[op] = Operation(forward, backward, keeps, selective)


def _from_output(backward: Callable) -> Callable:
    """Adapt a kernel's backward function of (dy, output)."""
    return lambda dy, y, x, **settings: (backward(dy, y, **settings),)


def _from_inputs(backward: Callable) -> Callable:
    """Adapt a kernel's backward function of (dy, input)."""
    return lambda dy, y, x, **settings: (backward(dy, x, **settings),)


def _with_weights(kernel: Callable) -> Callable:
    """Adapt a kernel of (x, weight=None, bias=None), in whatever order it takes its arguments."""

    def forward(x, *weights, **settings):
        return kernel(x, **dict(zip(("weight", "bias"), weights, strict=False)), **settings)

    return forward


def _to_weights(backward: Callable) -> Callable:
    """Adapt its backward function, which gives None for a weight or bias that is not there."""

    def pull_back(dy, y, x, *weights, output_mask=None, **settings):
        if output_mask is not None:
            settings["output_mask"] = (*output_mask, False, False)[:3]
        named = dict(zip(("weight", "bias"), weights, strict=False))
        return backward(dy, x, **named, **settings)[: 1 + len(weights)]

    return pull_back


def _wanted(output_mask, *gradients: Callable) -> list:
    """Compute the gradients that are wanted."""
    return [f() if wanted else None for wanted, f in zip(output_mask, gradients, strict=True)]


def _from_all_inputs(backward: Callable) -> Callable:
    """Adapt a kernel's backward function of (dy, inputs…) that returns a tuple."""
    return lambda dy, y, *inputs, **settings: backward(dy, *inputs, **settings)


def _bilinear_backward(dy, y, *inputs, output_mask):
    output_mask = (*output_mask, False)[:4]
    return kernels.bilinear_backward(dy, *inputs, output_mask=output_mask)[: len(inputs)]


def _embedding(weight, input, **settings):
    return kernels.embedding(input, weight, **settings)


def _embedding_backward(dy, y, weight, input, **settings):
    return (kernels.embedding_backward(dy, input, weight, **settings),)


def _embedding_bag(weight, *samples, input, **settings):
    samples = samples[0] if samples else None
    return kernels.embedding_bag(input, weight, per_sample_weights=samples, **settings)


def _embedding_bag_backward(dy, y, *arrays, input, **settings):
    weight, samples = arrays if len(arrays) == 2 else (*arrays, None)
    gradients = kernels.embedding_bag_backward(
        dy, input, weight, per_sample_weights=samples, **settings
    )
    return gradients[: len(arrays)]


def _with_mask(kernel: Callable) -> Callable:
    """Adapt an attention kernel: a mask of floats is one input more, one of bool a setting."""

    def forward(*inputs, attn_mask=None, count, **settings):
        inputs, mask = inputs[:count], (*inputs[count:], attn_mask)[0]
        return kernel(*inputs, mask, **settings)

    return forward


def _to_mask(backward: Callable) -> Callable:
    """Adapt its backward function, which gives None for a mask that is not an input."""

    def pull_back(dy, y, *inputs, attn_mask=None, count, **settings):
        given, mask = inputs[:count], (*inputs[count:], attn_mask)[0]
        return backward(dy, *given, mask, **settings)[: len(inputs)]

    return pull_back


def _with_last_states(kernel: Callable) -> Callable:
    """Adapt a recurrent kernel: the rows of the output, then those of the last states."""

    def forward(*inputs, **settings):
        *results, residuals = kernel(*inputs, **settings, return_residuals=True)
        return np.concatenate(results), residuals

    return forward


def _to_last_states(backward: Callable, names: tuple[str, ...]) -> Callable:
    """Adapt its backward function, which takes the gradients of the last states by name."""

    def pull_back(dy, y, *inputs, residuals, output_mask, **settings):
        x, h0 = inputs[:2]
        dy, *last = np.split(dy, [len(x) + i * len(h0) for i in range(len(names))])
        settings |= dict(zip(names, last, strict=True))
        settings["output_mask"] = (*output_mask, False, False)[: len(names) + 5]
        return backward(dy, *inputs, residuals=residuals, **settings)[: len(inputs)]

    return pull_back


def _cell_backward(backward: Callable) -> Callable:
    """Adapt a cell's backward function, which gives None for a bias that is not there."""
    return lambda dy, y, *inputs, **settings: backward(dy, *inputs, **settings)[: len(inputs)]


def _lstm_cell(*inputs):
    return np.stack(kernels.lstm_cell(*inputs))


def _lstm_cell_backward(dy, y, *inputs):
    return kernels.lstm_cell_backward(dy[0], *inputs, dc=dy[1])[: len(inputs)]


def _dropout_backward(dy, y, x, keep, p):
    return (kernels.dropout_backward(dy, keep, p),)


def _matmul_backward(dy, y, a, b, output_mask):
    # A vector counts as a row on the left and as a column on the right.
    rows = a[None, :] if a.ndim == 1 else a
    columns = b[:, None] if b.ndim == 1 else b
    dy = dy[..., None] if b.ndim == 1 else dy
    dy = np.expand_dims(dy, -2) if a.ndim == 1 else dy
    return _wanted(
        output_mask,
        lambda: sum_to_shape(dy @ columns.swapaxes(-1, -2), rows.shape).reshape(a.shape),
        lambda: sum_to_shape(rows.swapaxes(-1, -2) @ dy, columns.shape).reshape(b.shape),
    )


def _mul_backward(dy, y, a, b, output_mask):
    return _wanted(output_mask, lambda: dy * b, lambda: dy * a)


def _div_backward(dy, y, a, b, output_mask):
    return _wanted(output_mask, lambda: dy / b, lambda: -dy * y / b)


def _pow_backward(dy, y, x, exponent):
    return (dy * (exponent * x ** (exponent - 1)) if exponent != 0 else np.zeros_like(dy),)


def _getitem_backward(dy, y, x, index):
    if _is_integer_array(index) and x.ndim > 1:  # rows, some perhaps several times
        rows, width = len(x), math.prod(x.shape[1:])
        dy = dy.reshape(index.size, width)
        index = index.reshape(-1).astype(np.intp) % rows  # as int8, or unsigned, rows may not fit
        return (kernels.scatter_add(dy, index, rows).reshape(x.shape),)
    dx = np.zeros_like(x)
    if any(map(_is_integer_array, index if isinstance(index, tuple) else (index,))):
        np.add.at(dx, index, dy)
    else:  # slices, numbers and masks pick no element twice
        dx[index] = dy
    return (dx,)


def _is_integer_array(index) -> bool:
    return isinstance(index, np.ndarray) and index.dtype.kind in "iu"


def _cat(*arrays, dim):
    return np.concatenate(arrays, axis=dim)


def _cat_backward(dy, y, *arrays, dim):
    return np.split(dy, np.cumsum([a.shape[dim] for a in arrays])[:-1], axis=dim)


def _stack(*arrays, dim):
    return np.stack(arrays, axis=dim)


def _where_backward(dy, y, a, b, condition):
    zero = dy.dtype.type(0)
    return np.where(condition, dy, zero), np.where(condition, zero, dy)


def _power_backward(dy, y, a, b, output_mask):
    return _wanted(  # NaN where there is no derivative
        output_mask,
        lambda: dy * np.where(b == 0, 0, b * a ** np.where(b == 0, 1, b - 1)),
        lambda: dy * np.where((a == 0) & (b >= 0), 0, y * np.log(a)),
    )


def _extremum_backward(dy, y, a, b):
    share = (a == y).astype(dy.dtype), (b == y).astype(dy.dtype)
    both = np.maximum(share[0] + share[1], 1)
    return dy * share[0] / both, dy * share[1] / both


def _var(x, axis, keepdims, correction):
    difference = x - _mean(x, axis, keepdims=True)
    squares = (difference * difference).sum(axis=axis, keepdims=keepdims)
    return squares / _freedom(x, axis, correction)  # of too few entries NaN or ∞, as in torch


def _freedom(x, axis, correction):
    """Return the number of entries less the correction, at least 0."""
    return x.dtype.type(max(0, _count(x, axis) - correction))


def _var_backward(dy, y, x, axis, keepdims, correction):
    dy, mean = _with_axes(dy, x, axis, keepdims), _mean(x, axis, keepdims=True)
    return (dy * 2 * (x - mean) / _freedom(x, axis, correction),)


def _std_backward(dy, y, x, axis, keepdims, correction):
    # Where all entries are equal, x - mean is 0, and so is dx.
    double = np.where(y == 0, 1, 2 * y).astype(y.dtype)
    return _var_backward(dy / double, y, x, axis, keepdims, correction)


def _cumsum_backward(dy, y, x, dim):
    return (np.flip(np.cumsum(np.flip(dy, dim), axis=dim), dim),)


def _gather(x, dim, index):
    return np.take_along_axis(x[_corner(index, dim)], index, axis=dim)


def _gather_backward(dy, y, x, dim, index):
    dx = np.zeros_like(x)
    places = list(np.indices(index.shape, sparse=True))
    places[dim] = index
    np.add.at(dx, tuple(places), dy)
    return (dx,)


def _corner(index, dim):
    """Return slices of the entries of x that an index can reach."""
    return tuple(slice(None if i == dim else n) for i, n in enumerate(index.shape))


def _repeat_backward(dy, y, x, repeats):
    shape = (*[1] * (len(repeats) - x.ndim), *x.shape)
    apart = [n for pair in zip(repeats, shape, strict=True) for n in pair]
    return (dy.reshape(apart).sum(axis=tuple(range(0, len(apart), 2))).reshape(x.shape),)


def _clamp_backward(dy, y, x, min, max):
    inside = (x >= (-math.inf if min is None else min)) & (x <= (math.inf if max is None else max))
    return (np.where(inside, dy, dy.dtype.type(0)),)


def _sum_backward(dy, y, x, axis, keepdims):
    return (np.broadcast_to(_with_axes(dy, x, axis, keepdims), x.shape),)


def _mean(x, axis, keepdims):
    # The mean of nothing is NaN, as in torch.
    return x.sum(axis=axis, keepdims=keepdims) / x.dtype.type(_count(x, axis))


def _mean_backward(dy, y, x, axis, keepdims):
    return _sum_backward(dy / x.dtype.type(max(1, _count(x, axis))), y, x, axis, keepdims)


def _max_backward(dy, y, x, axis, keepdims):
    largest = x == _with_axes(y, x, axis, keepdims)
    share = _with_axes(dy, x, axis, keepdims) / largest.sum(axis, dtype=x.dtype, keepdims=True)
    return (largest * share,)


def _with_axes(reduced, x, axis, keepdims):
    """Return a reduced array with the axes of length 1 that keepdims=False dropped."""
    if keepdims:
        return reduced
    return np.expand_dims(reduced, tuple(range(x.ndim)) if axis is None else axis)


def _count(x, axis):
    axes = range(x.ndim) if axis is None else (axis if isinstance(axis, tuple) else (axis,))
    return int(np.prod([x.shape[i] for i in axes]))


for _op, _forward, _backward in [
    ("add", np.add, lambda dy, y, a, b: (dy, dy)),
    ("sub", np.subtract, lambda dy, y, a, b: (dy, -dy)),
    ("neg", np.negative, lambda dy, y, x: (-dy,)),
    ("pow", lambda x, exponent: x**exponent, _pow_backward),
    ("abs", np.abs, lambda dy, y, x: (dy * np.sign(x),)),
    ("exp", np.exp, lambda dy, y, x: (dy * y,)),
    ("log", np.log, lambda dy, y, x: (dy / x,)),
    ("sqrt", np.sqrt, lambda dy, y, x: (dy / (2 * y),)),
    ("sum", lambda x, axis, keepdims: x.sum(axis=axis, keepdims=keepdims), _sum_backward),
    ("mean", _mean, _mean_backward),
    ("max", lambda x, axis, keepdims: x.max(axis=axis, keepdims=keepdims), _max_backward),
    ("min", lambda x, axis, keepdims: x.min(axis=axis, keepdims=keepdims), _max_backward),
    ("var", _var, _var_backward),
    ("std", lambda *x, **settings: np.sqrt(_var(*x, **settings)), _std_backward),
    ("cumsum", lambda x, dim: np.cumsum(x, axis=dim, dtype=x.dtype), _cumsum_backward),
    ("sin", np.sin, lambda dy, y, x: (dy * np.cos(x),)),
    ("cos", np.cos, lambda dy, y, x: (-dy * np.sin(x),)),
    ("minimum", np.minimum, _extremum_backward),
    ("maximum", np.maximum, _extremum_backward),
    ("gather", _gather, _gather_backward),
    # The stretched axes are summed by the tape, as wherever something is broadcast.
    ("expand", lambda x, sizes: np.broadcast_to(x, sizes), lambda dy, y, x, sizes: (dy,)),
    ("repeat", lambda x, repeats: np.tile(x, repeats), _repeat_backward),
    ("reshape", lambda x, shape: x.reshape(shape), lambda dy, y, x, shape: (dy.reshape(x.shape),)),
    (
        "permute",
        lambda x, dims: x.transpose(dims),
        lambda dy, y, x, dims: (dy.transpose(np.argsort(dims)),),
    ),
    ("getitem", lambda x, index: x[index], _getitem_backward),
    ("cat", _cat, _cat_backward),
    ("stack", _stack, lambda dy, y, *arrays, dim: list(np.moveaxis(dy, dim, 0))),
    ("where", lambda a, b, condition: np.where(condition, a, b), _where_backward),
    ("clamp", lambda x, min, max: np.clip(x, min, max), _clamp_backward),
    # Indices are a setting, so they get no gradient; the table stands first.
    ("embedding", _embedding, _embedding_backward),
    ("embedding_bag", _embedding_bag, _embedding_bag_backward),
    ("dropout", kernels.dropout, _dropout_backward),
    ("pad", kernels.pad, _from_inputs(kernels.pad_backward)),
    ("sigmoid", kernels.sigmoid, _from_output(kernels.sigmoid_backward)),
    ("tanh", kernels.tanh, _from_output(kernels.tanh_backward)),
    ("softmax", kernels.softmax, _from_output(kernels.softmax_backward)),
    ("log_softmax", kernels.log_softmax, _from_output(kernels.log_softmax_backward)),
    ("relu", kernels.relu, _from_inputs(kernels.relu_backward)),
    ("leaky_relu", kernels.leaky_relu, _from_inputs(kernels.leaky_relu_backward)),
    ("hardtanh", kernels.hardtanh, _from_inputs(kernels.hardtanh_backward)),
    ("elu", kernels.elu, _from_inputs(kernels.elu_backward)),
    ("gelu", kernels.gelu, _from_inputs(kernels.gelu_backward)),
    ("softplus", kernels.softplus, _from_inputs(kernels.softplus_backward)),
    ("silu", kernels.silu, _from_inputs(kernels.silu_backward)),
    ("maxout", kernels.maxout, _from_inputs(kernels.maxout_backward)),
    ("glu", kernels.glu, _from_inputs(kernels.glu_backward)),
    ("logsumexp", kernels.logsumexp, _from_inputs(kernels.logsumexp_backward)),
    ("vector_norm", kernels.vector_norm, _from_inputs(kernels.vector_norm_backward)),
    ("normalize", kernels.normalize, _from_inputs(kernels.normalize_backward)),
    ("interpolate", kernels.interpolate, _from_inputs(kernels.interpolate_backward)),
    # Losses: the target is a setting, so it gets no gradient.
    ("mse_loss", kernels.mse_loss, _from_inputs(kernels.mse_loss_backward)),
    ("l1_loss", kernels.l1_loss, _from_inputs(kernels.l1_loss_backward)),
    (
        "binary_cross_entropy",
        kernels.binary_cross_entropy,
        _from_inputs(kernels.binary_cross_entropy_backward),
    ),
    (
        "binary_cross_entropy_with_logits",
        kernels.binary_cross_entropy_with_logits,
        _from_inputs(kernels.binary_cross_entropy_with_logits_backward),
    ),
    ("nll_loss", kernels.nll_loss, _from_inputs(kernels.nll_loss_backward)),
    ("kl_div", kernels.kl_div, _from_inputs(kernels.kl_div_backward)),
    ("zero_one_loss", kernels.zero_one_loss, _from_inputs(kernels.zero_one_loss_backward)),
    ("perceptron_loss", kernels.perceptron_loss, _from_inputs(kernels.perceptron_loss_backward)),
    ("hinge_loss", kernels.hinge_loss, _from_inputs(kernels.hinge_loss_backward)),
    ("logistic_loss", kernels.logistic_loss, _from_inputs(kernels.logistic_loss_backward)),
    ("smooth_l1_loss", kernels.smooth_l1_loss, _from_inputs(kernels.smooth_l1_loss_backward)),
    ("huber_loss", kernels.huber_loss, _from_inputs(kernels.huber_loss_backward)),
    (
        "multi_margin_loss",
        kernels.multi_margin_loss,
        _from_inputs(kernels.multi_margin_loss_backward),
    ),
    (
        "hinge_embedding_loss",
        kernels.hinge_embedding_loss,
        _from_inputs(kernels.hinge_embedding_loss_backward),
    ),
    ("gaussian_kl", kernels.gaussian_kl, _from_all_inputs(kernels.gaussian_kl_backward)),
    (
        "margin_ranking_loss",
        kernels.margin_ranking_loss,
        _from_all_inputs(kernels.margin_ranking_loss_backward),
    ),
    (
        "cosine_embedding_loss",
        kernels.cosine_embedding_loss,
        _from_all_inputs(kernels.cosine_embedding_loss_backward),
    ),
    (
        "contrastive_loss",
        kernels.contrastive_loss,
        _from_all_inputs(kernels.contrastive_loss_backward),
    ),
    (
        "triplet_margin_loss",
        kernels.triplet_margin_loss,
        _from_all_inputs(kernels.triplet_margin_loss_backward),
    ),
]:
    register(_op, _forward, _backward)

# Products: a constant factor, such as the input of the first layer, needs no gradient.
register("mul", np.multiply, _mul_backward, selective=True)
register("div", np.divide, _div_backward, selective=True)
register("power", np.power, _power_backward, selective=True)
register("matmul", np.matmul, _matmul_backward, selective=True)
register("bilinear", kernels.bilinear, _bilinear_backward, selective=True)

# Layers with weights have the inputs x, weight, bias or the first of them.
_PRODUCTS = ["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"]
for _op in [*_PRODUCTS, "instance_norm", "group_norm", "layer_norm", "rms_norm"]:
    _forward, _backward = getattr(kernels, _op), getattr(kernels, f"{_op}_backward")
    _selective = _op in _PRODUCTS
    register(_op, _with_weights(_forward), _to_weights(_backward), selective=_selective)

# Attention: query, key and (but for the weights) value, then the mask if it holds floats.
for _op in ["attention_weights", "blocked_attention"]:
    _backward = getattr(kernels, f"{_op}_backward")
    register(_op, _with_mask(getattr(kernels, _op)), _to_mask(_backward))

# Recurrent networks: input, states, weights and biases or none. Sequences are packed.
for _op in ["rnn", "gru", "simple_gru", "lstm"]:
    _forward, _backward = getattr(kernels, _op), getattr(kernels, f"{_op}_backward")
    _backward = _to_last_states(_backward, ("dh", "dc") if _op == "lstm" else ("dh",))
    register(_op, _with_last_states(_forward), _backward, keeps=True, selective=True)
for _op in ["rnn_cell", "gru_cell", "simple_gru_cell"]:
    register(_op, getattr(kernels, _op), _cell_backward(getattr(kernels, f"{_op}_backward")))
register("lstm_cell", _lstm_cell, _lstm_cell_backward)

for _op in [
    "unfold",
    "fold",
    "max_unpool2d",
    "avg_pool1d",
    "avg_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "lp_pool1d",
    "lp_pool2d",
    "local_response_norm",
    "roi_pool",
    "roi_align",
    "gram_matrix",
    "total_variation",
    "content_loss",
    "style_loss",
]:
    register(_op, getattr(kernels, _op), _from_inputs(getattr(kernels, f"{_op}_backward")))

register(
    "gaussian_nll_loss",
    lambda mean, var, target, **settings: kernels.gaussian_nll_loss(mean, target, var, **settings),
    lambda dy, y, mean, var, target, **settings: kernels.gaussian_nll_loss_backward(
        dy, mean, target, var, **settings
    ),
)

# Two sets of vectors.
for _op in ["cosine_similarity", "pairwise_distance", "cdist"]:
    _backward = getattr(kernels, f"{_op}_backward")
    register(_op, getattr(kernels, _op), _from_all_inputs(_backward))

# Words: hidden vectors and output table; the pairs' two vectors and two biases.
for _op in ["negative_sampling_loss", "hierarchical_softmax_loss", "glove_loss"]:
    _backward = getattr(kernels, f"{_op}_backward")
    register(_op, getattr(kernels, _op), _from_all_inputs(_backward))
# These keep what they know after the forward pass for the backward pass.
for _op in [
    "batch_norm",
    "cross_entropy",
    "max_pool1d",
    "max_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "scaled_dot_product_attention",
]:
    _forward = functools.partial(getattr(kernels, _op), return_residuals=True)
    _backward = getattr(kernels, f"{_op}_backward")
    if _op == "batch_norm":
        _forward, _backward = _with_weights(_forward), _to_weights(_backward)
    elif _op == "scaled_dot_product_attention":
        _forward, _backward = _with_mask(_forward), _to_mask(_backward)
    else:
        _backward = _from_inputs(_backward)
    register(_op, _forward, _backward, keeps=True)

register(
    "reparameterize", kernels.reparameterize, _from_all_inputs(kernels.reparameterize_backward)
)


# ---- arguments -------------------------------------------------------------------------------


def _as_array(data) -> np.ndarray:
    if isinstance(data, Tensor):
        raise TypeError("data must be a number, a list or an array, got a Tensor; use detach()")
    given = isinstance(data, np.ndarray | np.generic)
    array = np.asarray(data)
    if not given and array.dtype == np.float64:
        array = array.astype(np.float32)  # Python's floats, as in torch
    if array.dtype not in _validate.FLOATS and array.dtype.kind not in "iub":
        raise TypeError(f"data must be float32, float64, integers or bool, got {array.dtype}")
    return array


def _operands(*given) -> tuple[Tensor, Tensor]:
    """Return both sides of an operator as tensors of one dtype whose shapes broadcast."""
    left, right = _of_one_dtype(*given)
    if left.shape != right.shape and left.ndim and right.ndim:
        _check_broadcast(left.shape, right.shape)
    return left, right


def _matrices(*given) -> tuple[Tensor, Tensor]:
    """Return both sides of @ as tensors of one dtype whose shapes fit."""
    left, right = _of_one_dtype(*given)
    if not left.ndim or not right.ndim:
        raise ValueError(f"@ needs at least 1 axis on each side, got {_shapes((left, right))}")
    inner = right.shape[-2] if right.ndim > 1 else right.shape[0]
    if left.shape[-1] != inner:
        raise ValueError(
            "@ needs as many columns on the left as rows on the right, got shapes "
            f"{_shapes((left, right))}"
        )
    if left.ndim > 2 and right.ndim > 2:
        _check_broadcast(left.shape[:-2], right.shape[:-2])
    return left, right


def _check_broadcast(*shapes: tuple[int, ...]) -> None:
    """Raise ValueError unless the shapes broadcast."""
    for lengths in itertools.zip_longest(*map(reversed, shapes), fillvalue=1):
        if len({n for n in lengths if n != 1}) > 1:
            raise ValueError(
                f"the shapes {_listed(shapes)} do not broadcast: counted from the last axis, "
                "lengths must be equal or 1"
            )


def _shapes(tensors) -> str:
    return _listed([one.shape for one in tensors])


def _listed(shapes) -> str:
    *others, last = map(str, shapes)
    return f"{', '.join(others)} and {last}" if others else last


def _of_one_dtype(*given) -> tuple[Tensor, Tensor]:
    """Return both sides of an operator as tensors of one dtype.

    Python numbers, lists and integers take the dtype of the float that they meet; two float
    dtypes do not mix, so that float32 never turns into float64 unseen.
    """
    left, right = sides = [x if isinstance(x, Tensor) else Tensor(x) for x in given]
    if left.dtype == right.dtype:
        return left, right
    yields = [
        side.dtype not in _validate.FLOATS or isinstance(x, numbers.Number | list | tuple)
        for side, x in zip(sides, given, strict=True)
    ]
    if left.dtype in _validate.FLOATS and yields[1]:
        return left, _as(given[1], left.dtype)
    if right.dtype in _validate.FLOATS and yields[0]:
        return _as(given[0], right.dtype), right
    if all(yields):  # two kinds of integers: NumPy's own rule
        return left, right
    raise TypeError(
        f"both sides must have the same dtype, got {left.dtype} and {right.dtype}; "
        "convert the data of one with .astype"
    )


def _as(given, dtype) -> Tensor:
    """Return one side in another dtype; a Python number straight, not by way of float32."""
    return Tensor(np.asarray(given.data if isinstance(given, Tensor) else given, dtype))


def _compare(function: Callable, left, right) -> Tensor:
    """Return a bool tensor; there is none for ==, which asks whether two tensors are the same."""
    left, right = _operands(left, right)
    return Tensor(np.asarray(function(left.data, right.data)))


def _tensors(values) -> list[Tensor]:
    """Return a list or tuple of tensors of one dtype (arrays are taken as constants)."""
    if not isinstance(values, list | tuple):
        raise TypeError(f"tensors must be a list or tuple of tensors, got {type(values).__name__}")
    if not values:
        raise ValueError(f"tensors must hold at least one tensor, got {values}")
    tensors = [value if isinstance(value, Tensor) else Tensor(value) for value in values]
    dtypes = sorted({str(one.dtype) for one in tensors})
    if len(dtypes) > 1:
        raise TypeError(f"tensors must have the same dtype, got {' and '.join(dtypes)}")
    return tensors


def _bound(name: str, value) -> int | float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        raise TypeError(f"{name} must be a number or None, got {type(value).__name__}")
    return value if value is None or isinstance(value, int) else float(value)


def _exponent(value) -> int | float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"the exponent must be a number, got {type(value).__name__}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _power(base: Tensor, exponent) -> Tensor:
    if isinstance(exponent, Tensor):
        return apply("power", *_operands(base, exponent))
    return apply("pow", base, exponent=_exponent(exponent))


def _sizes(sizes, ndim: int) -> tuple[int, ...]:
    """Return the ints of expand(2, 3) or expand((2, 3)), at least one for each axis."""
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    sizes = tuple(_validate.integer("sizes", size, low=-1) for size in sizes)
    if len(sizes) < ndim:
        raise ValueError(f"there must be a size for each of the {ndim} axes, got {sizes}")
    return sizes


def _gathered(x: Tensor, dim: int, index) -> np.ndarray:
    """Return the index of `gather` as an array, once it is seen to fit."""
    index = np.asarray(index.data if isinstance(index, Tensor) else index)
    if index.dtype.kind not in "iu":
        raise TypeError(f"index must hold integers, got {index.dtype}")
    others = [i for i in range(x.ndim) if i != dim]
    if index.ndim != x.ndim or any(index.shape[i] > x.shape[i] for i in others):
        raise ValueError(
            f"index must fit into shape {x.shape} but along dim={dim}, got {index.shape}"
        )
    return _validate.labels("index", index, classes=x.shape[dim], shape=index.shape)


def _index(index):
    """Replace tensors and lists inside an index by arrays."""
    if isinstance(index, tuple):
        return tuple(_index(part) for part in index)
    if isinstance(index, list):
        return np.array(index, None if index else np.intp)
    return index.data if isinstance(index, Tensor) else index


def _axes(x: Tensor, axis, keepdims, dim, keepdim) -> dict:
    """Return axis and keepdims, whether they were given by NumPy's names or by torch's."""
    if axis is not None and dim is not None:
        raise TypeError("give either axis or dim, not both")
    axis = dim if axis is None else axis
    if isinstance(axis, tuple | list):
        axis = tuple(_validate.dimension("axis", i, x.ndim) for i in axis)
        if len(set(axis)) < len(axis):
            raise ValueError(f"axis must name each axis at most once, got {axis}")
    elif axis is not None:
        axis = _validate.dimension("axis", axis, x.ndim)
    return {"axis": axis, "keepdims": bool(keepdims if keepdim is None else keepdim)}


def _first_gradient(x: Tensor, gradient) -> np.ndarray:
    """Return the gradient that `backward` starts from."""
    if not x.requires_grad:
        raise RuntimeError("backward() needs a tensor that requires a gradient, this one does not")
    if gradient is None:
        if x.data.size != 1:
            raise ValueError(f"backward() of shape {x.shape} needs a gradient of that shape")
        return np.ones_like(x.data)
    gradient = gradient.data if isinstance(gradient, Tensor) else gradient
    gradient = np.array(gradient, None if isinstance(gradient, np.ndarray) else x.dtype)
    _validate.same_dtype(gradient=gradient, tensor=x.data)
    return _validate.has_shape("gradient", gradient, x.shape, "the shape of the tensor")
