"""torch.nn.functional on this book's CUDA kernels: `import dlnotes.cuda.functional as F`.

>>> import torch                                                   # doctest: +SKIP
>>> from dlnotes.cuda import functional as F                       # doctest: +SKIP
>>> y = F.linear(x, weight, bias)                                  # doctest: +SKIP
>>> y.sum().backward()                                             # doctest: +SKIP

Names, arguments, results and gradients are torch's. The tensors' device chooses the engine: on a
GPU a kernel is queued on torch's current stream, on the CPU the engine of `dlnotes.cuda` runs it.
Tensors are float32, or float64, for which the same source is compiled with every float read as a
double: that is what `torch.autograd.gradcheck` needs. Products (`linear`, `conv2d`, `conv1d`,
`conv_transpose2d`, `scaled_dot_product_attention`) take bfloat16 as well, on tensor cores: sums are
float32, results and gradients rounded to bfloat16. All tensors of a call must have one dtype and
one device; they are made contiguous where they are not. What a kernel cannot do (an option, a
dtype, a shape) is refused before anything is launched.

Mixed precision is torch's. Parameters stay float32, and inside the block each product gets its
inputs rounded to bfloat16; all other functions get and return float32:

>>> with torch.autocast("cpu", dtype=torch.bfloat16):              # doctest: +SKIP
...     loss = F.cross_entropy(network(images), labels)
>>> loss.backward()                                                # doctest: +SKIP

Gradients exist once, not twice: a kernel's backward pass has no backward pass of its own.
The last rung of a ladder runs that suits the sizes; `choose` takes another, or another mode:

>>> with F.choose(linear="matmul_naive"):                          # doctest: +SKIP
...     y = F.linear(x, weight, bias)

A rung of tensor cores that is chosen for float32 rounds the matrices of its products alone:
`choose(linear="matmul_mma", linear_backward="matmul_mma")` leaves activations and gradients
float32. The forward and the backward pass must both run inside. In attention query, key, value and
the gradient from above are rounded, and within the kernels the weights and the gradients of the
scores; masks and the softmax are float32.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dlnotes import _validate
from dlnotes.cuda.ladders import (
    IGNORED,
    LADDERS,
    conv_sizes,
    conv_transpose_sizes,
    pool_sizes,
)

# What works entry by entry, moves or draws entries is torch's own.
FROM_TORCH = (
    "celu", "dropout", "dropout2d", "elu", "gelu", "hardtanh", "leaky_relu", "mse_loss", "one_hot",
    "pad", "relu", "relu6", "sigmoid", "silu", "softplus", "tanh",
)  # fmt: skip
_FLOATS = (torch.float32, torch.float64)
_OF_PRODUCTS = (torch.bfloat16, *_FLOATS)
_MOST_ENTRIES = 2**31 - 1  # kernels count entries in 32 bits
_MOST_BLOCKS_IN_Z = 65535
_SHARED = 48 * 1024  # bytes of shared memory that a block gets on any card without asking


def __getattr__(name: str):
    if name in FROM_TORCH:
        return getattr(torch.nn.functional, name)
    raise AttributeError(
        f"dlnotes.cuda.functional has no {name}: the book has no kernel for it "
        "(torch.nn.functional may have one)"
    )


# ---- which rung, and how it is run ---------------------------------------------------------------

_mode: str = "fast"
_rungs: dict[str, str] = {}


@contextlib.contextmanager
def choose(mode: str | None = None, **rungs: str) -> Iterator[None]:
    """Inside this block run other rungs: choose(linear="matmul_naive"), or in another mode.

    mode: "fast" or "checked", for tensors on the CPU. rungs: by ladder, see `dlnotes.cuda.LADDERS`.
    A backward pass takes what is chosen when it runs. Not for several threads at once.

    Raises ValueError for a mode, ladder or rung that does not exist.
    """
    global _mode, _rungs
    before = _mode, _rungs
    for ladder, rung in rungs.items():
        LADDERS[_validate.one_of("ladder", ladder, LADDERS)].rung(rung)
    if mode is not None:
        _validate.one_of("mode", mode, ("fast", "checked"))
    _mode, _rungs = mode or _mode, {**_rungs, **rungs}
    try:
        yield
    finally:
        _mode, _rungs = before


def run(ladder: str, *inputs, rung: str | None = None):
    """Return a ladder's outputs for torch tensors, on the device of the first of them.

    The tensors must be contiguous, of one device and float dtype; for bfloat16 the results are
    float32, not rounded yet. rung: the one that suits them, if not the last; what `choose` says
    comes first. No gradient is recorded.
    """
    device = next(x.device for x in inputs if isinstance(x, Tensor))
    rung = _rungs.get(ladder, rung)
    if any(isinstance(x, Tensor) and x.dtype == torch.bfloat16 for x in inputs):
        inputs = [_for_tensor_cores(x) for x in inputs]
    elif rung is not None and LADDERS[ladder].rung(rung).dtype == "bfloat16":
        inputs = [_rounded(ladder, place, x) for place, x in enumerate(inputs)]
    if device.type == "cpu":
        return LADDERS[ladder].run(*inputs, rung=rung, device="cpu", mode=_mode)
    with torch.cuda.device(device):
        return LADDERS[ladder].run(*inputs, rung=rung, device="cuda")


def _for_tensor_cores(x):
    """Return bfloat16 as such rungs take it: a bias as float32, a matrix where TMA can copy it."""
    if not isinstance(x, Tensor) or x.dtype != torch.bfloat16:
        return x
    if x.ndim == 1:
        return x.float()
    return x.clone() if x.data_ptr() % 16 else x


def _rounded(ladder: str, place: int, x):
    """Return arrays of float32 as bfloat16, but not a bias, say, which such rungs take as it is."""
    floats = isinstance(x, Tensor) and x.dtype == torch.float32
    if floats and LADDERS[ladder].multiplies(place, x):
        return x.to(torch.bfloat16)
    return x


# ---- arguments -----------------------------------------------------------------------------------


def _floats(*, products: bool = False, **tensors) -> list[Tensor | None]:
    """Return the tensors, after torch.autocast: all of one float dtype, on one device.

    products: whether the function multiplies on tensor cores. Then it takes bfloat16, too, and
    inside torch.autocast gets it; others get float32 there. None stays None, except as the first.

    Raises TypeError or ValueError for other tensors, and for torch.autocast to float16.
    """
    wanted = torch.bfloat16 if products else torch.float32
    cast = {name: x.to(wanted) if _in_autocast(x) else x for name, x in tensors.items()}
    _check_floats(_OF_PRODUCTS if products else _FLOATS, **cast)
    return list(cast.values())


def _in_autocast(x) -> bool:
    """Return whether torch.autocast has a say in the dtype of x; float64 it leaves alone."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    device = x.device.type
    if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
        return False
    dtype = torch.get_autocast_dtype(device)
    if dtype != torch.bfloat16:
        raise ValueError(
            f"torch.autocast must have dtype=torch.bfloat16, got {_short(dtype)}: the kernels have "
            "no other"
        )
    return True


def _check_floats(allowed: tuple[torch.dtype, ...], **tensors) -> None:
    """Raise TypeError or ValueError unless all are tensors of one float dtype, on one device.

    None is skipped, except as the first.
    """
    (first, like), *_ = tensors.items()
    for name, tensor in tensors.items():
        if tensor is None and name != first:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}")
        if tensor.dtype not in allowed:
            *others, last = map(_short, allowed)
            names = f"{', '.join(others)} or {last}"
            raise TypeError(f"{name} must be {names}, got {_short(tensor.dtype)}")
        _on_engine(name, tensor)
        if tensor.dtype != like.dtype:
            raise TypeError(
                f"{first} and {name} must have the same dtype, but {first} is {_short(like.dtype)} "
                f"and {name} is {_short(tensor.dtype)}"
            )
        _same_device(first, like, name, tensor)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _on_engine(name: str, tensor: Tensor) -> None:
    if tensor.device.type not in ("cpu", "cuda") or tensor.layout is not torch.strided:
        raise ValueError(
            f"{name} must be a dense tensor on the CPU or a CUDA device, got one on "
            f"{tensor.device} with layout {tensor.layout}"
        )
    if tensor.numel() > _MOST_ENTRIES:
        raise ValueError(f"{name} must have fewer than 2³¹ entries, got {tensor.numel()}")


def _same_device(first: str, like: Tensor, name: str, tensor: Tensor) -> None:
    if tensor.device != like.device:
        raise ValueError(
            f"{first} and {name} must be on one device, but {first} is on {like.device} and {name} "
            f"on {tensor.device}"
        )


def _integers(name: str, value, other: str, like: Tensor, most: int, what: str) -> Tensor:
    """Return `value`, an integer tensor on the device of `other` with entries 0 … most, as int64.

    On a GPU this waits for the entries: a wild one would read someone else's memory.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}")
    if value.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(f"{name} must hold integers, got {_short(value.dtype)}")
    _on_engine(name, value)
    _same_device(other, like, name, value)
    if value.numel():
        low, high = (int(v) for v in torch.aminmax(value))
        if low < 0 or high > most:
            wrong = low if low < 0 else high
            raise ValueError(f"{name} must hold {what} in 0 … {most}, got {wrong}")
    return value.to(torch.int64).contiguous()


def _shape(name: str, tensor: Tensor | None, shape: tuple[int, ...], why: str) -> None:
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{name} must have shape {tuple(shape)} ({why}), got {tuple(tensor.shape)}"
        )


def _axes(name: str, tensor: Tensor, allowed: tuple[int, ...], what: str) -> None:
    if tensor.ndim not in allowed:
        raise ValueError(f"{name} must be {what}, got shape {tuple(tensor.shape)}")


def _only(**settings) -> None:
    """Raise ValueError for an option that the kernels lack: name=(given, what they can do)."""
    for name, (given, can) in settings.items():
        if given is not can and given != can:
            raise ValueError(f"{name} must be {can!r}: the kernels have no other, got {given!r}")


def _pair(name: str, value, low: int) -> tuple[int, int]:
    """Return one number, or one for each axis, as (height, width)."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= 2
    if len(values) != 2:
        raise ValueError(f"{name} must be one number or two, got {value!r}")
    height, width = (_validate.integer(name, v, low=low) for v in values)
    return height, width


def _images(input: Tensor) -> Tensor:
    """Return images as (n, c, h, w): one without the batch axis gets it."""
    _axes("input", input, (3, 4), "images (n, c, h, w) or one of them, (c, h, w)")
    return input if input.ndim == 4 else input[None]


# ---- linear --------------------------------------------------------------------------------------


class _Linear(Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight)
        y = run("linear", x, weight, None if bias is None else bias.contiguous())
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        # Autograd rounds each gradient to the dtype of what it belongs to.
        dx, dweight, dbias = run("linear_backward", dy.contiguous(), *ctx.saved_tensors)
        return dx, dweight, dbias if ctx.needs_input_grad[2] else None


def linear(input, weight, bias=None) -> Tensor:
    """Return input Wᵀ + b. input: (…, in), weight: (out, in), bias: (out,) or None → (…, out).

    Ladders "linear" and "linear_backward". Cost: 2 · rows · in · out operations, twice as many
    backward.

    Raises TypeError for dtypes and ValueError for devices and shapes that do not fit together.
    """
    input, weight, bias = _floats(products=True, input=input, weight=weight, bias=bias)
    _axes("weight", weight, (2,), "a matrix (out, in)")
    n_out, n_in = weight.shape
    if not input.ndim or input.shape[-1] != n_in:
        raise ValueError(
            f"input must have shape (…, {n_in}) (the columns of weight), got {tuple(input.shape)}"
        )
    _shape("bias", bias, (n_out,), "the rows of weight")
    y = _Linear.apply(input.reshape(input.shape[:-1].numel(), n_in), weight, bias)
    return y.reshape(*input.shape[:-1], n_out)


# ---- convolution ---------------------------------------------------------------------------------


class _Conv2d(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, *settings):
        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        bias = None if bias is None else bias.contiguous()
        return run("conv2d", x, weight, bias, *settings).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        gradients = run("conv2d_backward", dy.contiguous(), *ctx.saved_tensors, *ctx.settings)
        dx, dweight, dbias = gradients
        dbias = dbias if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias, *[None] * len(ctx.settings)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """Return the convolution (correlation) of images with kernels, as torch.nn.functional.conv2d.

    input: (n, c, h, w) or (c, h, w), weight: (out, c / groups, kernel_h, kernel_w), bias: (out,) or
    None → (n, out, out_h, out_w). groups: each part of the channels has kernels of its own.
    padding: zeros in front and behind, "valid" for none, or "same" for an output as large as the
    input (stride 1). Ladders "conv2d" and "conv2d_backward". Cost: 2 · n · out · out_h · out_w
    · c / groups · kernel_h · kernel_w operations, twice as many backward.

    Raises TypeError for dtypes, ValueError for devices, shapes and settings that do not fit.
    """
    input, weight, bias = _floats(products=True, input=input, weight=weight, bias=bias)
    _axes("weight", weight, (4,), "kernels (out, c, kernel_h, kernel_w)")
    x, groups = _images(input), _validate.integer("groups", groups, low=1)
    if x.shape[1] % groups or len(weight) % groups:
        raise ValueError(
            f"groups must divide the {x.shape[1]} channels of input and the {len(weight)} kernels "
            f"of weight, got {groups}"
        )
    if x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"weight must have the {x.shape[1] // groups} channels of a group of input, got shape "
            f"{tuple(weight.shape)}"
        )
    _shape("bias", bias, weight.shape[:1], "the output channels of weight")
    stride, dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    if isinstance(padding, str):
        x, padding = _padded(x, padding, weight.shape[2:], stride, dilation)
    padding = _pair("padding", padding, 0)
    sizes = conv_sizes(x.shape, weight.shape, stride, padding, dilation, groups)
    _has_output(sizes, x, weight.shape[2:])
    y = _Conv2d.apply(x, weight, bias, stride, padding, dilation, groups)
    return y if input.ndim == 4 else y[0]


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """Return the convolution of sequences: that of images of one row, by `conv2d`.

    input: (n, c, length) or (c, length), weight: (out, c / groups, kernel) → (n, out, length out).
    The settings are numbers, and padding may be "valid" or "same", as in torch.

    Raises TypeError for dtypes, ValueError for devices, shapes and settings that do not fit.
    """
    input, weight, bias = _floats(products=True, input=input, weight=weight, bias=bias)
    _axes("input", input, (2, 3), "sequences (n, c, length) or one of them, (c, length)")
    _axes("weight", weight, (3,), "kernels (out, c, kernel)")
    stride, dilation = _along("stride", stride, 1), _along("dilation", dilation, 1)
    padding = padding if isinstance(padding, str) else _along("padding", padding, 0)
    settings = (stride, padding, dilation, groups)
    return conv2d(input[..., None, :], weight[..., None, :], bias, *settings)[..., 0, :]


def _along(name: str, value, default: int) -> tuple[int, int]:
    """Return the setting of a sequence as that of an image of one row."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if len(values) != 1:
        raise ValueError(f"{name} must be one number, got {value!r}")
    return default, *values


def _padded(x: Tensor, padding: str, kernel, stride, dilation) -> tuple[Tensor, tuple[int, int]]:
    """Return (x, padding) for padding by name; where the sides differ, x is padded behind."""
    if _validate.one_of("padding", padding, ("valid", "same")) == "valid":
        return x, (0, 0)
    if stride != (1, 1):
        raise ValueError(f'padding="same" needs stride 1, got {stride}')
    (down, right) = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    if down % 2 or right % 2:
        x = torch.nn.functional.pad(x, (0, right % 2, 0, down % 2))
    return x, (down // 2, right // 2)


def _has_output(sizes, x: Tensor, kernel) -> None:
    if sizes.out_h < 1 or sizes.out_w < 1:
        raise ValueError(
            f"input must be at least as large as the window {tuple(kernel)} with its dilation and "
            f"padding, got shape {tuple(x.shape)}"
        )


class _ConvTranspose2d(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, *settings):
        x, weight = x.contiguous(), weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        bias = None if bias is None else bias.contiguous()
        return run("conv_transpose2d", x, weight, bias, *settings).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        inputs = (dy.contiguous(), *ctx.saved_tensors, *ctx.settings)
        dx, dweight, dbias = run("conv_transpose2d_backward", *inputs)
        dbias = dbias if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias, *[None] * len(ctx.settings)


def conv_transpose2d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Tensor:
    """Return the transposed convolution, as torch.nn.functional.conv_transpose2d.

    input: (n, c, h, w) or (c, h, w), weight: (c, out / groups, kernel_h, kernel_w), bias: (out,) or
    None → (n, out, out_h, out_w), out_h being (h - 1) · stride - 2 padding + dilation
    · (kernel_h - 1) + 1 + output_padding, out_w likewise; output_padding is below the stride or the
    dilation.
    Ladders "conv_transpose2d" and "conv_transpose2d_backward". Cost: 2 · n · c · h · w
    · out / groups · kernel_h · kernel_w operations, twice as many backward.

    Raises TypeError for dtypes, ValueError for devices, shapes and settings that do not fit.
    """
    input, weight, bias = _floats(products=True, input=input, weight=weight, bias=bias)
    _axes("weight", weight, (4,), "kernels (c, out, kernel_h, kernel_w)")
    x, groups = _images(input), _validate.integer("groups", groups, low=1)
    if x.shape[1] % groups:
        raise ValueError(f"groups must divide the {x.shape[1]} channels of input, got {groups}")
    if len(weight) != x.shape[1]:
        raise ValueError(
            f"weight must have kernels for the {x.shape[1]} channels of input, got shape "
            f"{tuple(weight.shape)}"
        )
    _shape("bias", bias, (weight.shape[1] * groups,), "the output channels of weight")
    stride, dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    padding, more = _pair("padding", padding, 0), _pair("output_padding", output_padding, 0)
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        raise ValueError(f"output_padding must be below the stride or the dilation, got {more}")
    sizes = conv_transpose_sizes(x.shape, weight.shape, stride, padding, more, groups, dilation)
    if sizes.h < 1 or sizes.w < 1:
        raise ValueError(f"padding must leave an output, got {padding}")
    y = _ConvTranspose2d.apply(x, weight, bias, stride, padding, more, groups, dilation)
    return y if input.ndim == 4 else y[0]


# ---- pooling -------------------------------------------------------------------------------------


def _pool_rung(name: str, x: Tensor, kernel, stride) -> str:
    """Return the tiled rung where windows overlap, and where its tile and its grid fit."""
    tile_h, tile_w = (s * (n - 1) + k for s, n, k in zip(stride, (8, 16), kernel, strict=True))
    overlap = any(s < k for s, k in zip(stride, kernel, strict=True))
    fits = tile_h * tile_w * x.element_size() <= _SHARED
    fits &= x.shape[0] * x.shape[1] <= _MOST_BLOCKS_IN_Z
    return f"{name}_pool_{'tiled' if overlap and fits else 'naive'}"


class _MaxPool2d(Function):
    @staticmethod
    def forward(ctx, x, kernel, stride, padding, ceil_mode):
        rung, settings = _pool_rung("max", x, kernel, stride), (kernel, stride, padding)
        y, indices = run("max_pool2d", x.contiguous(), *settings, ceil_mode, rung=rung)
        ctx.save_for_backward(indices)
        ctx.mark_non_differentiable(indices)
        ctx.settings = x.shape, *settings
        return y, indices

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, _):
        (indices,) = ctx.saved_tensors
        dx = run("max_pool2d_backward", dy.contiguous(), indices, *ctx.settings)
        return dx, None, None, None, None


class _AvgPool2d(Function):
    @staticmethod
    def forward(ctx, x, kernel, stride, padding):
        rung = _pool_rung("avg", x, kernel, stride)
        ctx.settings = x.shape, kernel, stride, padding
        return run("avg_pool2d", x.contiguous(), kernel, stride, padding, rung=rung)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return run("avg_pool2d_backward", dy.contiguous(), *ctx.settings), None, None, None


def _pooling(input, kernel_size, stride, padding, ceil_mode=False) -> tuple:
    """Return images, kernel, stride and padding of a pooling, checked."""
    (input,) = _floats(input=input)
    x, kernel = _images(input), _pair("kernel_size", kernel_size, 1)
    stride = kernel if stride is None else _pair("stride", stride, 1)
    padding = _pair("padding", padding, 0)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"padding must be at most half of kernel_size {kernel}, got {padding}")
    _has_output(pool_sizes(x.shape, kernel, stride, padding, ceil_mode), x, kernel)
    return x, kernel, stride, padding


def max_pool2d(
    input,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    """Return the largest entry of each window; with return_indices also where, row · w + column.

    input: (n, c, h, w) or (c, h, w). The first wins on ties; NaN wins always. ceil_mode adds a last
    window for entries that are left over. Ladders "max_pool2d" and "max_pool2d_backward"; each
    entry of a window is read once.

    Raises ValueError for dilation, which the kernels lack, and for windows without an output;
    TypeError for dtypes.
    """
    _only(dilation=(_pair("dilation", dilation, 1), (1, 1)))
    ceil_mode = bool(ceil_mode)
    windows = _pooling(input, kernel_size, stride, padding, ceil_mode)
    y, indices = _MaxPool2d.apply(*windows, ceil_mode)
    if input.ndim == 3:
        y, indices = y[0], indices[0]
    return (y, indices) if return_indices else y


def avg_pool2d(
    input,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
) -> Tensor:
    """Return the mean of each window; padding counts as zeros.

    input: (n, c, h, w) or (c, h, w). Ladders "avg_pool2d" and "avg_pool2d_backward".

    Raises ValueError for settings that the kernels lack and for windows without an output.
    """
    _only(
        ceil_mode=(ceil_mode, False),
        count_include_pad=(count_include_pad, True),
        divisor_override=(divisor_override, None),
    )
    y = _AvgPool2d.apply(*_pooling(input, kernel_size, stride, padding))
    return y if input.ndim == 4 else y[0]


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False,
               return_indices=False):  # fmt: skip
    """Return `max_pool2d` of sequences (n, c, length) or (c, length), with errors as there."""
    (input,) = _floats(input=input)
    _axes("input", input, (2, 3), "sequences (n, c, length) or one of them, (c, length)")
    kernel, stride, padding = _windows_of_one_axis(kernel_size, stride, padding)
    settings = _along("dilation", dilation, 1), ceil_mode, True
    y, indices = max_pool2d(input.unsqueeze(-2), kernel, stride, padding, *settings)
    return (y.squeeze(-2), indices.squeeze(-2)) if return_indices else y.squeeze(-2)


def avg_pool1d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
) -> Tensor:
    """Return `avg_pool2d` of sequences (n, c, length) or (c, length), with errors as there."""
    (input,) = _floats(input=input)
    _axes("input", input, (2, 3), "sequences (n, c, length) or one of them, (c, length)")
    windows = _windows_of_one_axis(kernel_size, stride, padding)
    return avg_pool2d(input.unsqueeze(-2), *windows, ceil_mode, count_include_pad).squeeze(-2)


def _windows_of_one_axis(kernel_size, stride, padding) -> tuple:
    """Return kernel, stride and padding of windows one pixel high."""
    stride = kernel_size if stride is None else stride
    kernel, stride = _along("kernel_size", kernel_size, 1), _along("stride", stride, 1)
    return kernel, stride, _along("padding", padding, 0)


class _AdaptiveAvgPool2d(Function):
    @staticmethod
    def forward(ctx, x, out):
        ctx.shape = tuple(x.shape)
        return run("adaptive_avg_pool2d", x.contiguous(), out)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return run("adaptive_avg_pool2d_backward", dy.contiguous(), ctx.shape), None


def adaptive_avg_pool2d(input, output_size) -> Tensor:
    """Return means over a grid of output_size rectangles that cover each image.

    input: (n, c, h, w) or (c, h, w). output_size: one number, or two, None for an axis that stays
    as it is. Ladders "adaptive_avg_pool2d" and "adaptive_avg_pool2d_backward".

    Raises TypeError for dtypes and ValueError for shapes and devices that do not fit.
    """
    (input,) = _floats(input=input)
    x = _images(input)
    if 0 in x.shape[2:]:
        raise ValueError(f"input must have no empty axis of its images, got {tuple(input.shape)}")
    sizes = output_size if isinstance(output_size, tuple | list) else (output_size,) * 2
    if len(sizes) == 2:
        sizes = [old if n is None else n for n, old in zip(sizes, x.shape[2:], strict=True)]
    y = _AdaptiveAvgPool2d.apply(x, _pair("output_size", sizes, 1))
    return y if input.ndim == 4 else y[0]


# ---- rows: softmax, layer norm, cross-entropy ----------------------------------------------------


class _Softmax(Function):
    @staticmethod
    def forward(ctx, x):
        y = run("softmax", x.contiguous())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return run("softmax_backward", dy.contiguous(), *ctx.saved_tensors)


def softmax(input, dim: int) -> Tensor:
    """Return eˣ / Σ eˣ along the axis `dim`, of input's shape. Ladder "softmax".

    An axis other than the last is moved there and back, which copies.
    """
    (input,) = _floats(input=input)
    dim = _validate.dimension("dim", dim, input.ndim)
    rows = input.movedim(dim, -1)
    y = _Softmax.apply(rows.reshape(rows.shape[:-1].numel(), rows.shape[-1]))
    return y.reshape(rows.shape).movedim(-1, dim)


class _LayerNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        x, columns = x.contiguous(), x.shape[1]
        affine = weight is not None, bias is not None
        weight = x.new_ones(columns) if weight is None else weight.contiguous()
        bias = x.new_zeros(columns) if bias is None else bias.contiguous()
        kept = columns * x.element_size() <= _SHARED
        rung = "layer_norm_kept" if kept else "layer_norm_warp"
        y, mean, scale = run("layer_norm", x, weight, bias, eps, rung=rung)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.affine = affine
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        dx, *rest = run("layer_norm_backward", dy.contiguous(), *ctx.saved_tensors)
        dweight, dbias = (g if has else None for g, has in zip(rest, ctx.affine, strict=True))
        return dx, dweight, dbias, None


def layer_norm(input, normalized_shape, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    """Return (x - mean) / √(variance + eps) · weight + bias over the last axes of input.

    normalized_shape: the sizes of these axes, and the shape of weight and bias. Ladders
    "layer_norm" and "layer_norm_backward".

    Raises TypeError for dtypes and ValueError for shapes and devices that do not fit.
    """
    input, weight, bias = _floats(input=input, weight=weight, bias=bias)
    shape = _last_axes(input, normalized_shape)
    _shape("weight", weight, shape, "normalized_shape")
    _shape("bias", bias, shape, "normalized_shape")
    columns = torch.Size(shape).numel()
    rows = input.reshape(input.shape[: -len(shape)].numel(), columns)
    flat = [None if p is None else p.reshape(columns) for p in (weight, bias)]
    return _LayerNorm.apply(rows, *flat, float(eps)).reshape(input.shape)


def _last_axes(input: Tensor, normalized_shape) -> tuple[int, ...]:
    """Return normalized_shape as a tuple, with which the shape of input must end."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape:
        raise ValueError(
            f"input must end with the axes {shape} of normalized_shape, got {tuple(input.shape)}"
        )
    return shape


class _CrossEntropy(Function):
    """The loss of each row, and the sum of all of them; the gradient comes along with them."""

    @staticmethod
    def forward(ctx, x, target, reduction, counted):
        losses, dx = run("cross_entropy", x.contiguous(), target)
        # The kernel's gradient is that of the mean over max(counted, 1) rows.
        ctx.save_for_backward(dx)
        ctx.reduction, ctx.counted = reduction, counted
        if reduction == "none":
            return losses
        total = run("sum", losses)[0]
        return total if reduction == "sum" else total / counted

    @staticmethod
    @once_differentiable
    def backward(ctx, dloss):
        (dx,) = ctx.saved_tensors
        if ctx.reduction == "mean":
            return dx * dloss if ctx.counted else dx * torch.nan, None, None, None
        return dx * (max(ctx.counted, 1) * dloss.reshape(-1, 1)), None, None, None


def cross_entropy(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index: int = IGNORED,
    reduce=None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return -log softmax(input) at the target: the mean over the rows that count, a sum, or each.

    input: logits (n, classes), (classes,) or (n, classes, …); target: integers (n,), () or (n, …).
    Rows whose target is ignore_index count nothing. Ladders "cross_entropy", which gives loss and
    gradient in one kernel, and "sum".

    Raises ValueError for what the kernels lack (weight, label_smoothing, probabilities as
    target) and for targets out of range: they are looked at first, for which a GPU is waited for.
    """
    (input,) = _floats(input=input)
    _only(
        weight=(weight, None),
        size_average=(size_average, None),
        reduce=(reduce, None),
        label_smoothing=(label_smoothing, 0.0),
    )
    _validate.one_of("reduction", reduction, ("mean", "sum", "none"))
    if input.ndim == 0 or input.shape[min(input.ndim - 1, 1)] == 0:
        raise ValueError(f"input must have an axis of classes, got shape {tuple(input.shape)}")
    axis = min(input.ndim - 1, 1)
    classes = input.shape[axis]
    target = _labels(target, input, classes, ignore_index)
    logits = input.movedim(axis, -1)
    _shape("target", target, logits.shape[:-1], "one label for each row of input")
    flat = target.reshape(-1)
    counted = int((flat != IGNORED).sum())
    loss = _CrossEntropy.apply(logits.reshape(-1, classes), flat, reduction, counted)
    return loss.reshape(target.shape) if reduction == "none" else loss


def _labels(target, input: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Return the labels, with IGNORED for ignore_index; the others must be classes."""
    if isinstance(target, Tensor) and target.dtype in (torch.int64, torch.int32):
        ignored = target == ignore_index
        _integers("target", target.masked_fill(ignored, 0), "input", input, classes - 1, "classes")
        return target.to(torch.int64).masked_fill(ignored, IGNORED).contiguous()
    return _integers("target", target, "input", input, classes - 1, "classes")


# ---- embedding -----------------------------------------------------------------------------------


class _Embedding(Function):
    @staticmethod
    def forward(ctx, ids, table, padding_idx):
        ctx.save_for_backward(ids)
        ctx.rows, ctx.padding_idx = len(table), padding_idx
        return run("embedding", ids, table.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        (ids,) = ctx.saved_tensors
        dtable = run("embedding_backward", dy.contiguous(), ids, ctx.rows)
        if ctx.padding_idx is not None:
            dtable[ctx.padding_idx] = 0
        return None, dtable, None


def embedding(
    input,
    weight,
    padding_idx: int | None = None,
    max_norm=None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Return the rows of weight (rows, width) that input names: integers (…) → (…, width).

    The row padding_idx gets no gradient. Ladders "embedding" and "embedding_backward".

    Raises ValueError for numbers out of range, for which a GPU is waited for, and for settings
    that the kernels lack.
    """
    _only(
        max_norm=(max_norm, None),
        scale_grad_by_freq=(scale_grad_by_freq, False),
        sparse=(sparse, False),
    )
    (weight,) = _floats(weight=weight)
    _axes("weight", weight, (2,), "a table (rows, width)")
    if padding_idx is not None:
        padding_idx = _validate.dimension("padding_idx", padding_idx, len(weight))
    ids = _integers("input", input, "weight", weight, len(weight) - 1, "rows of weight")
    y = _Embedding.apply(ids.reshape(-1), weight, padding_idx)
    return y.reshape(*input.shape, weight.shape[1])


# ---- attention -----------------------------------------------------------------------------------

_WIDEST = 128  # numbers of a query, key or value that the rungs in registers take


def _attention_rungs(query, value) -> dict[str, str]:
    """Return the rungs for these widths; on a GPU, tiles of doubles do not fit a block."""
    if max(query.shape[-1], value.shape[-1]) > _WIDEST:
        return {"forward": "attention_naive", "backward": "attention_backward_naive"}
    if query.dtype == torch.bfloat16:
        return {"forward": "attention_mma", "backward": "attention_backward_mma"}
    if query.dtype == torch.float64 and query.is_cuda:
        return {"forward": "attention_online", "backward": "attention_backward_naive"}
    return {"forward": "attention_tiled", "backward": "attention_backward_tiled"}


class _Attention(Function):
    @staticmethod
    def forward(ctx, query, key, value, mask, causal, scale):
        inputs = [x.contiguous() for x in (query, key, value)]
        ctx.rungs, ctx.settings = _attention_rungs(query, value), (mask, causal, scale)
        if ctx.rungs["forward"] == "attention_naive" and query.dtype == torch.bfloat16:
            inputs = [x.float() for x in inputs]  # too wide for tensor cores
        y, log_sum = run("attention", *inputs, *ctx.settings, rung=ctx.rungs["forward"])
        ctx.save_for_backward(*inputs, y, log_sum)
        return y.to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        query, *saved = ctx.saved_tensors
        inputs = dy.contiguous().to(query.dtype), query, *saved, *ctx.settings
        return *run("attention_backward", *inputs, rung=ctx.rungs["backward"]), None, None, None


def scaled_dot_product_attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(query keyᵀ · scale + mask) value, without the matrix of scores in memory.

    query: (…, l, e), key: (…, s, e), value: (…, s, v), with the same leading axes → (…, l, v).
    attn_mask broadcasts to the scores (…, l, s): bool, True where a query may look, or floats that
    are added, which get no gradient. is_causal: query i sees the keys 0 … i. scale: 1/√e if not
    given. A query that sees no key gets 0. Ladders "attention" and "attention_backward". Cost:
    2 · l · s · (e + v) operations for each leading index, two and a half times as many backward.

    Raises ValueError for dropout and grouped queries, which the kernels lack, and for shapes that
    do not fit; TypeError for dtypes.
    """
    _only(dropout_p=(dropout_p, 0.0), enable_gqa=(enable_gqa, False))
    query, key, value = _floats(products=True, query=query, key=key, value=value)
    if query.ndim < 2 or not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(f"query, key and value must have the same leading axes, got {shapes}")
    (queries, e), keys = query.shape[-2:], key.shape[-2]
    _shape("key", key, (*key.shape[:-1], e), "as wide as query")
    _shape("value", value, (*value.shape[:-2], keys, value.shape[-1]), "as many as keys")
    leading = query.shape[:-2]
    mask = _attention_mask(attn_mask, query, (*leading, queries, keys), is_causal)
    if len(leading) > 2:  # the kernels know two leading axes
        query, key, value = (x.reshape(leading.numel(), *x.shape[-2:]) for x in (query, key, value))
        if mask is not None and mask.ndim > 2:
            mask = mask.expand(*leading, *mask.shape[-2:]).reshape(-1, *mask.shape[-2:])
    if scale is not None:
        scale = _validate.number("scale", scale)
    mask = None if mask is None else mask.contiguous()
    y = _Attention.apply(query, key, value, mask, bool(is_causal), scale)
    return y.reshape(*leading, *y.shape[-2:])


def _attention_mask(mask, query: Tensor, scores: tuple[int, ...], is_causal: bool):
    if mask is None:
        return None
    if is_causal:
        raise ValueError("give attn_mask or is_causal, not both")
    if not isinstance(mask, Tensor):
        raise TypeError(f"attn_mask must be a torch tensor, got {type(mask).__name__}")
    if _in_autocast(mask):
        mask = mask.to(query.dtype)
    if mask.dtype not in (torch.bool, query.dtype):
        raise TypeError(
            f"attn_mask must be bool or {_short(query.dtype)}, got {_short(mask.dtype)}"
        )
    _on_engine("attn_mask", mask)
    _same_device("query", query, "attn_mask", mask)
    fits = zip(mask.shape[::-1], scores[::-1], strict=False)
    if mask.ndim > len(scores) or not all(n in (1, size) for n, size in fits):
        raise ValueError(f"attn_mask must broadcast to {scores}, got shape {tuple(mask.shape)}")
    if mask.requires_grad:
        raise ValueError("attn_mask must not want a gradient: the kernels have none for it")
    return mask.float() if mask.dtype == torch.bfloat16 else mask  # it is added to float32


# ---- batch norm ----------------------------------------------------------------------------------


class _BatchNorm(Function):
    """→ (y, the new running mean and variance); these are new tensors, zeros without old ones."""

    @staticmethod
    def forward(ctx, x, weight, bias, running, momentum, eps):
        x, weight, bias = (None if t is None else t.contiguous() for t in (x, weight, bias))
        y, mean, scale, *new = run("batch_norm", x, *running, weight, bias, momentum, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.has_bias = bias is not None
        new = [mean.new_zeros(()) if tensor is None else tensor for tensor in new]
        ctx.mark_non_differentiable(*new)
        return y, *new

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, *_):
        return *_batch_norm_gradients(ctx, dy, True), None, None, None


class _BatchNormInference(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running, eps):
        x, weight, bias = (None if t is None else t.contiguous() for t in (x, weight, bias))
        ctx.save_for_backward(x, weight, running[0], (running[1] + eps).rsqrt())
        ctx.has_bias = bias is not None
        return run("batch_norm_inference", x, *running, weight, bias, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return *_batch_norm_gradients(ctx, dy, False), None, None


def _batch_norm_gradients(ctx, dy, training: bool) -> tuple:
    x, weight, mean, scale = ctx.saved_tensors
    gradients = run("batch_norm_backward", dy.contiguous(), x, weight, mean, scale, training)
    dx, dweight, dbias = gradients
    return dx, None if weight is None else dweight, dbias if ctx.has_bias else None


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return input normalised channel by channel, times weight, plus bias.

    input: (n, c) or (n, c, …); the others (c,) or None. With training=True by the batch's own mean
    and variance, and running_mean and running_var, if given, move by `momentum` towards them (the
    variance unbiased); else by these two. Ladders "batch_norm", "batch_norm_inference" and
    "batch_norm_backward".

    Raises ValueError for shapes that do not fit, for one value a channel in training, and for
    missing running statistics without training; TypeError for dtypes.
    """
    running = running_mean, running_var  # what moves are these, not what autocast makes of them
    input, running_mean, running_var, weight, bias = _floats(
        input=input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if input.ndim < 2:
        raise ValueError(f"input must have shape (n, c, …), got {tuple(input.shape)}")
    channels, old = input.shape[1:2], (running_mean, running_var)
    names = ("running_mean", "running_var", "weight", "bias")
    for name, tensor in zip(names, (*old, weight, bias), strict=True):
        _shape(name, tensor, channels, "the channels of input")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must be given together, or neither")
    if not training:
        if running_mean is None:
            raise ValueError("running_mean and running_var must be given with training=False")
        old = tuple(tensor.contiguous() for tensor in old)
        return _BatchNormInference.apply(input, weight, bias, old, float(eps))
    if input.numel() <= channels[0]:
        raise ValueError(
            f"input must have more than one value a channel in training, got {tuple(input.shape)}"
        )
    old = tuple(None if tensor is None else tensor.contiguous() for tensor in old)
    y, *new = _BatchNorm.apply(input, weight, bias, old, float(momentum), float(eps))
    for tensor, moved in zip(running, new, strict=True):
        if tensor is not None:
            with torch.no_grad():
                tensor.copy_(moved)
    return y


# ---- group norm, RMS norm ------------------------------------------------------------------------


class _GroupNorm(Function):
    @staticmethod
    def forward(ctx, x, groups, weight, bias, eps):
        x, weight, bias = (None if t is None else t.contiguous() for t in (x, weight, bias))
        y, mean, scale = run("group_norm", x, groups, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.groups, ctx.has_bias = groups, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight, mean, scale = ctx.saved_tensors
        inputs = (dy.contiguous(), x, ctx.groups, weight, mean, scale)
        dx, dweight, dbias = run("group_norm_backward", *inputs)
        dweight = None if weight is None else dweight
        return dx, None, dweight, dbias if ctx.has_bias else None, None


def group_norm(input, num_groups: int, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    """Return input normalised over each of num_groups groups of channels of each sample.

    input: (n, c) or (n, c, …), weight and bias: (c,) or None, for each channel; num_groups divides
    c. Ladders "group_norm" and "group_norm_backward".

    Raises TypeError for dtypes and ValueError for shapes and devices that do not fit.
    """
    input, weight, bias = _floats(input=input, weight=weight, bias=bias)
    if input.ndim < 2:
        raise ValueError(f"input must have shape (n, c, …), got {tuple(input.shape)}")
    num_groups, channels = _validate.integer("num_groups", num_groups, low=1), input.shape[1:2]
    if channels[0] % num_groups:
        raise ValueError(
            f"num_groups must divide the {channels[0]} channels of input, got {num_groups}"
        )
    _shape("weight", weight, channels, "the channels of input")
    _shape("bias", bias, channels, "the channels of input")
    return _GroupNorm.apply(input, num_groups, weight, bias, float(eps))


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        x, weight = x.contiguous(), None if weight is None else weight.contiguous()
        y, scale = run("rms_norm", x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight, scale = ctx.saved_tensors
        dx, dweight = run("rms_norm_backward", dy.contiguous(), x, weight, scale)
        return dx, None if weight is None else dweight, None


def rms_norm(input, normalized_shape, weight=None, eps: float | None = None) -> Tensor:
    """Return x / √(mean of x² + eps) · weight over the last axes of input.

    normalized_shape: the sizes of these axes, and the shape of weight. eps=None is the spacing of
    the dtype's numbers at 1. Ladders "rms_norm" and "rms_norm_backward".

    Raises TypeError for dtypes and ValueError for shapes and devices that do not fit.
    """
    input, weight = _floats(input=input, weight=weight)
    shape = _last_axes(input, normalized_shape)
    _shape("weight", weight, shape, "normalized_shape")
    rows = input.reshape(input.shape[: -len(shape)].numel(), torch.Size(shape).numel())
    weight = None if weight is None else weight.reshape(-1)
    eps = torch.finfo(input.dtype).eps if eps is None else float(eps)
    return _RMSNorm.apply(rows, weight, eps).reshape(input.shape)


class _LocalResponseNorm(Function):
    @staticmethod
    def forward(ctx, x, size, *settings):
        x = x.contiguous()
        # A block's tile has eight channels and their neighbours at 32 places.
        tiled = 32 * (8 + size - 1) * x.element_size() <= _SHARED
        ctx.rung = "local_response_backward_" + ("tiled" if tiled else "naive")
        ctx.settings = size, *settings
        rung = ctx.rung.replace("_backward", "")
        y, d = run("local_response_norm", x, *ctx.settings, rung=rung)
        ctx.save_for_backward(x, d)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        inputs = (dy.contiguous(), *ctx.saved_tensors, *ctx.settings)
        dx = run("local_response_norm_backward", *inputs, rung=ctx.rung)
        return dx, *[None] * len(ctx.settings)


def local_response_norm(
    input, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Return x / (k + alpha · mean of x²)^beta, the mean over `size` channels around each.

    input: (n, c, …). Channels that do not exist count as 0. Ladders "local_response_norm" and
    "local_response_norm_backward".

    Raises TypeError for dtypes and ValueError for shapes and devices that do not fit.
    """
    (input,) = _floats(input=input)
    if input.ndim < 3:
        raise ValueError(f"input must have shape (n, c, …), got {tuple(input.shape)}")
    size = _validate.integer("size", size, low=1)
    return _LocalResponseNorm.apply(input, size, float(alpha), float(beta), float(k))


# ---- recurrent cells -----------------------------------------------------------------------------


class _LSTMCell(Function):
    @staticmethod
    def forward(ctx, x, h, c, *weights):
        x, h, c, *weights = (None if t is None else t.contiguous() for t in (x, h, c, *weights))
        new_h, new_c, gates = run("lstm_cell", x, h, c, *weights)
        ctx.save_for_backward(x, h, c, new_c, gates, *weights[:2])
        ctx.biases = [bias is not None for bias in weights[2:]]
        ctx.set_materialize_grads(False)
        return new_h, new_c

    @staticmethod
    @once_differentiable
    def backward(ctx, dh, dc):
        h = ctx.saved_tensors[1]
        dh = torch.zeros_like(h) if dh is None else dh.contiguous()
        dc = None if dc is None else dc.contiguous()
        *gradients, dbias_ih, dbias_hh = run("lstm_cell_backward", dh, dc, *ctx.saved_tensors)
        return *gradients, *_given(ctx.biases, dbias_ih, dbias_hh)


class _GRUCell(Function):
    @staticmethod
    def forward(ctx, x, h, *weights):
        x, h, *weights = (None if t is None else t.contiguous() for t in (x, h, *weights))
        new_h, gates = run("gru_cell", x, h, *weights)
        ctx.save_for_backward(x, h, gates, *weights[:2])
        ctx.biases = [bias is not None for bias in weights[2:]]
        return new_h

    @staticmethod
    @once_differentiable
    def backward(ctx, dh):
        inputs = dh.contiguous(), *ctx.saved_tensors
        *gradients, dbias_ih, dbias_hh = run("gru_cell_backward", *inputs)
        return *gradients, *_given(ctx.biases, dbias_ih, dbias_hh)


def _given(wanted: list[bool], *gradients) -> tuple:
    return tuple(g if is_wanted else None for g, is_wanted in zip(gradients, wanted, strict=True))


def lstm_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None) -> tuple[Tensor, Tensor]:
    """Return the next (h, c) of an LSTM, as torch.lstm_cell.

    input: (n, in), hx: (h, c), each (n, units); w_ih: (4 units, in), w_hh: (4 units, units), biases
    (4 units,) or None; the gates in torch's order i, f, g, o. Ladders "lstm_cell" and
    "lstm_cell_backward". Cost: 8 · n · units · (in + units) operations.

    Raises ValueError for shapes that do not fit and TypeError for dtypes.
    """
    h, c = hx
    input, h, *weights = _cell(4, input, h, w_ih, w_hh, b_ih, b_hh)
    _, c = _floats(input=input, c=c)
    _shape("c", c, tuple(h.shape), "as h")
    return _LSTMCell.apply(input, h, c, *weights)


def gru_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None) -> Tensor:
    """Return the next h of a GRU, as torch.gru_cell.

    Shapes as in `lstm_cell`, with hx = h (n, units) and three gates, r, z, n. Ladders "gru_cell"
    and "gru_cell_backward". Cost: 6 · n · units · (in + units) operations.

    Raises ValueError for shapes that do not fit and TypeError for dtypes.
    """
    return _GRUCell.apply(*_cell(3, input, hx, w_ih, w_hh, b_ih, b_hh))


def _cell(gates: int, input, h, w_ih, w_hh, b_ih, b_hh) -> list[Tensor | None]:
    """Check what cells of three or four gates have in common, and return it after autocast."""
    given = {"input": input, "h": h, "w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    given = _floats(**given)
    _axes("input", input, (2,), "a batch (n, in)")
    _axes("h", h, (2,), "a batch (n, units)")
    units = h.shape[1]
    _shape("h", h, (len(input), units), "the rows of input")
    _shape("w_ih", w_ih, (gates * units, input.shape[1]), f"{gates} gates of {units} units")
    _shape("w_hh", w_hh, (gates * units, units), f"{gates} gates of {units} units")
    for name, bias in (("b_ih", b_ih), ("b_hh", b_hh)):
        _shape(name, bias, (gates * units,), f"{gates} gates of {units} units")
    return given


# ---- Gram matrices, negative sampling ------------------------------------------------------------


class _GramMatrix(Function):
    @staticmethod
    def forward(ctx, x):
        x = x.contiguous()
        ctx.save_for_backward(x)
        return run("gram_matrix", x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return run("gram_matrix_backward", dy.contiguous(), *ctx.saved_tensors)


def gram_matrix(x) -> Tensor:
    """Return Σ x_i x_j / (c h w) over the places of each image (n, c, h, w) → (n, c, c).

    As `dlnotes.kernels.gram_matrix`; not in torch. Ladders "gram_matrix" and
    "gram_matrix_backward". Raises TypeError for dtypes and ValueError for shapes.
    """
    (x,) = _floats(x=x)
    _axes("x", x, (4,), "images (n, c, h, w)")
    return _GramMatrix.apply(x)


class _NegativeSampling(Function):
    """The gradients of the mean come along with the losses."""

    @staticmethod
    def forward(ctx, hidden, weight, target, noise, reduction, remove_hits):
        inputs = hidden.contiguous(), weight.contiguous(), target, noise, remove_hits
        losses, dhidden, dweight = run("negative_sampling_loss", *inputs)
        ctx.save_for_backward(dhidden, dweight)
        ctx.factor = 1 if reduction == "mean" else len(losses)
        total = run("sum", losses)[0]
        return total / len(losses) if reduction == "mean" else total

    @staticmethod
    @once_differentiable
    def backward(ctx, dloss):
        gradients = [ctx.factor * dloss * gradient for gradient in ctx.saved_tensors]
        return *gradients, None, None, None, None


def negative_sampling_loss(
    hidden, weight, target, noise, reduction: str = "mean", *, remove_accidental_hits: bool = False
) -> Tensor:
    """Return the mean or sum of -log σ(h·w_target) - Σ_j log σ(-h·w_noise[j]) over the samples.

    hidden: (n, d), weight: (words, d), target: integers (n,), noise: integers (n, k). As
    `dlnotes.kernels.negative_sampling_loss`; not in torch. Ladders "negative_sampling_loss" and
    "sum".

    Raises ValueError for shapes that do not fit and words out of range, for which a GPU is waited
    for; TypeError for dtypes.
    """
    hidden, weight = _floats(hidden=hidden, weight=weight)
    _validate.one_of("reduction", reduction, ("mean", "sum"))
    _axes("weight", weight, (2,), "a table (words, d)")
    _axes("hidden", hidden, (2,), "vectors (n, d)")
    _shape("hidden", hidden, (len(hidden), weight.shape[1]), "as wide as weight")
    words = len(weight) - 1
    target = _integers("target", target, "hidden", hidden, words, "rows of weight")
    noise = _integers("noise", noise, "hidden", hidden, words, "rows of weight")
    _shape("target", target, (len(hidden),), "a word for each row of hidden")
    _axes("noise", noise, (2,), "words for each sample, (n, k)")
    _shape("noise", noise, (len(hidden), noise.shape[1]), "words for each row of hidden")
    settings = reduction, bool(remove_accidental_hits)
    return _NegativeSampling.apply(hidden, weight, target, noise, *settings)
