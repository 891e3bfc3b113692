"""The operations of the layers as functions on tensors: `import dlnotes.nn.functional as F`.

Shapes: activations of single entries, softmax, normalisations and dropout return the input's.
Convolutions and poolings turn (n, channels, *size) into the same with other lengths. Losses of
labels take (n, classes, …) and integers (n, …), most others arguments of one shape; they return one
number or, with reduction="none", one for each sample or entry. All floats are of one dtype, float32
or float64, and so is what is returned.

Errors and cost of each are those of the kernel that it runs, in `dlnotes.kernels`: TypeError for
dtypes, ValueError for shapes and settings that do not fit, and for a target that requires a
gradient.

Inputs are tensors (arrays are taken as constants); values, arguments and errors are those of the
kernel of the same name in `dlnotes.kernels`; convolutions, poolings and losses of classes also take
one sample without the batch axis, as in torch. Gradients flow to every tensor but the targets.

Arguments stand in torch.nn.functional's order. What follows its deprecated size_average and reduce,
which are not taken, is for keywords only. Also missing: `inplace` of the activations and dropouts,
`dtype` of the softmaxes, `enable_gqa` of attention, `weight` of mse_loss, l1_loss and huber_loss.
"""

import functools

import numpy as np

from dlnotes import _validate, kernels, random
from dlnotes._validate import Number
from dlnotes.autograd import Tensor, apply

Int = int | np.integer
Size = Int | tuple[int, ...] | list[int]  # one number for every axis, or one for each


def _one_sample_too(ndim: int):
    """Let a function of (n, …), `ndim` axes, also take one sample without the first axis."""

    def decorate(function):
        @functools.wraps(function)
        def with_batch(input, *arguments, **settings):
            input = _tensor(input)
            if input.ndim != ndim - 1:
                return function(input, *arguments, **settings)
            y = function(input.reshape(1, *input.shape), *arguments, **settings)
            if isinstance(y, tuple):
                return tuple(part.reshape(*part.shape[1:]) for part in y)
            return y.reshape(*y.shape[1:])

        return with_batch

    return decorate


def _one_label_too(function):
    """Let a loss of (n, classes) also take one sample, (classes,), and its target."""

    @functools.wraps(function)
    def with_batch(input, target, *arguments, **settings):
        input = _tensor(input)
        if input.ndim != 1:
            return function(input, target, *arguments, **settings)
        target = _constant("target", target)[None]
        return function(input.reshape(1, -1), target, *arguments, **settings).reshape(())

    return with_batch


def linear(input, weight, bias=None) -> Tensor:
    """Return input Wᵀ + b: (…, in) → (…, out); weight: (out, in), bias: (out,) or None."""
    return apply("linear", input, weight) if bias is None else apply("linear", input, weight, bias)


def bilinear(input1, input2, weight, bias=None) -> Tensor:
    """Return input1ᵀ W_k input2 + b_k; weight: (out, in1, in2), bias: (out,) or None.

    input1 (…, in1), input2 (…, in2) → (…, out).
    """
    inputs = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
    return apply("bilinear", *inputs)


def one_hot(tensor, num_classes: int = -1) -> Tensor:
    """Return int64 rows that are 1 at the label and 0 elsewhere: (…) → (…, num_classes)."""
    return Tensor(kernels.one_hot(_constant("tensor", tensor), num_classes))


def embedding(
    input,
    weight,
    padding_idx: int | None = None,
    max_norm: Number | None = None,
    norm_type: Number = 2.0,
    scale_grad_by_freq: bool = False,
) -> Tensor:
    """Return the rows of weight (rows, d) that the integers `input` name: (…) → (…, d).

    With max_norm, rows that are looked up and longer are first cut down to it, IN PLACE, as in
    torch; the gradient does not see it.
    """
    input = _constant("input", input)
    settings = {"padding_idx": padding_idx, "scale_grad_by_freq": scale_grad_by_freq}
    if max_norm is not None:
        weight = _tensor(weight)
        kernels.embedding_renorm(weight.data, input, max_norm, norm_type)
    return apply("embedding", weight, input=input, **settings)


def embedding_bag(
    input,
    weight,
    offsets=None,
    *,
    max_norm: Number | None = None,
    norm_type: Number = 2.0,
    mode: str = "mean",
    per_sample_weights=None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return the sum, mean or largest entries of the rows in each bag of indices.

    input (bags, length), or (n,) with offsets (bags,), and weight (rows, d) → (bags, d). mode:
    "sum", "mean" or "max"; max_norm as in `embedding`.
    """
    input = _constant("input", input)
    if max_norm is not None:
        weight = _tensor(weight)
        kernels.embedding_renorm(weight.data, input, max_norm, norm_type)
    inputs = (weight,) if per_sample_weights is None else (weight, per_sample_weights)
    return apply(
        *("embedding_bag", *inputs),
        input=input,
        offsets=_constant("offsets", offsets),
        mode=mode,
        include_last_offset=include_last_offset,
        padding_idx=padding_idx,
    )


def dropout(input, p: Number = 0.5, training: bool = True, *, generator=None) -> Tensor:
    """Return the input with each entry set to 0 with probability p, the rest times 1/(1 - p).

    The mask is drawn from `generator`, by default `dlnotes.random.generator()`. Without
    training=True, or with p = 0, nothing is drawn and the input is returned.
    """
    input = input if isinstance(input, Tensor) else Tensor(input)
    return _dropout(input, input.shape, p, training, generator)


def dropout2d(input, p: Number = 0.5, training: bool = True, *, generator=None) -> Tensor:
    """Return (n, channels, h, w) with whole channels of a sample set to 0 with probability p.

    The rest as in `dropout`.
    """
    input = input if isinstance(input, Tensor) else Tensor(input)
    if input.ndim != 4:
        raise ValueError(f"input must have 4 axes (n, channels, h, w), got shape {input.shape}")
    return _dropout(input, (*input.shape[:2], 1, 1), p, training, generator)


def pad(
    input, pad: tuple[int, ...] | list[int], mode: str = "constant", value: Number | None = None
) -> Tensor:
    """Return the input with pad[0] entries in front of its last axis, pad[1] behind it, and so on.

    mode: "constant" (of `value`, by default 0), "reflect", "replicate" or "circular".
    """
    return apply("pad", input, pad=pad, mode=mode, value=value)


def sigmoid(input) -> Tensor:
    """Return 1 / (1 + e⁻ˣ)."""
    return apply("sigmoid", input)


def tanh(input) -> Tensor:
    """Return tanh x."""
    return apply("tanh", input)


def relu(input) -> Tensor:
    """Return max(x, 0)."""
    return apply("relu", input)


def leaky_relu(input, negative_slope: Number = 0.01) -> Tensor:
    """Return x where x > 0, else negative_slope · x."""
    return apply("leaky_relu", input, negative_slope=negative_slope)


def hardtanh(input, min_val: Number = -1.0, max_val: Number = 1.0) -> Tensor:
    """Return x, cut off below min_val and above max_val."""
    return apply("hardtanh", input, min_val=min_val, max_val=max_val)


def relu6(input) -> Tensor:
    """Return min(max(x, 0), 6)."""
    return hardtanh(input, 0.0, 6.0)


def elu(input, alpha: Number = 1.0) -> Tensor:
    """Return x where x > 0, else alpha · (eˣ - 1)."""
    return apply("elu", input, alpha=alpha)


def gelu(input, approximate: str = "none") -> Tensor:
    """Return x · Φ(x), or with approximate="tanh" its approximation."""
    return apply("gelu", input, approximate=approximate)


def softplus(input, beta: Number = 1.0, threshold: Number = 20.0) -> Tensor:
    """Return log(1 + e^(beta x)) / beta, and x itself where beta · x > threshold."""
    return apply("softplus", input, beta=beta, threshold=threshold)


def silu(input) -> Tensor:
    """Return x · σ(x)."""
    return apply("silu", input)


def maxout(input, pool_size: int) -> Tensor:
    """Return the largest of each `pool_size` consecutive features."""
    return apply("maxout", input, pool_size=pool_size)


def softmax(input, dim: int = -1) -> Tensor:
    """Return eˣ / Σ eˣ along `dim`."""
    return apply("softmax", input, dim=dim)


def log_softmax(input, dim: int = -1) -> Tensor:
    """Return x - log Σ eˣ along `dim`."""
    return apply("log_softmax", input, dim=dim)


# ---- attention -------------------------------------------------------------------------------


def scaled_dot_product_attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p: Number = 0.0,
    is_causal: bool = False,
    *,
    scale: Number | None = None,
    generator=None,
) -> Tensor:
    """Return softmax(Q Kᵀ · scale + mask) V; a bool mask is True where a query may look.

    As in torch, dropout_p > 0 always drops weights: give 0 outside training.

    query (…, l, e), key (…, s, e), value (…, s, v) → (…, l, v); attn_mask broadcasts to (…, l, s):
    bool, or floats that are added to the scores. is_causal: query i sees the keys 0 … i. scale:
    1/√e by default (Vaswani et al., 2017).
    """
    if _validate.number("dropout_p", dropout_p, low=0, high=1) == 0:
        settings = {"is_causal": is_causal, "scale": scale}
        return _attention("scaled_dot_product_attention", query, key, value, attn_mask, **settings)
    weights = attention_weights(query, key, attn_mask, is_causal, scale=scale)
    return dropout(weights, dropout_p, generator=generator) @ _tensor(value)


def attention_weights(
    query, key, attn_mask=None, is_causal: bool = False, *, scale: Number | None = None
) -> Tensor:
    """Return softmax(Q Kᵀ · scale + mask), the weights of scaled dot-product attention.

    Shapes and masks as in `scaled_dot_product_attention` → (…, l, s).
    """
    settings = {"is_causal": is_causal, "scale": scale}
    return _attention("attention_weights", query, key, None, attn_mask, **settings)


def blocked_attention(
    query,
    key,
    value,
    attn_mask=None,
    is_causal: bool = False,
    *,
    scale: Number | None = None,
    block_size: Int = 128,
) -> Tensor:
    """Return scaled dot-product attention, computed `block_size` keys at a time.

    Arguments and result as in `scaled_dot_product_attention`, without dropout.
    """
    settings = {"is_causal": is_causal, "scale": scale, "block_size": block_size}
    return _attention("blocked_attention", query, key, value, attn_mask, **settings)


# ---- convolution -----------------------------------------------------------------------------


@_one_sample_too(3)
def conv1d(
    input,
    weight,
    bias=None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
) -> Tensor:
    """Return the convolution of sequences (n, channels, length): (n, out channels, length_out)."""
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _with_weights("conv1d", input, weight, bias, **settings)


@_one_sample_too(4)
def conv2d(
    input,
    weight,
    bias=None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
) -> Tensor:
    """Return the convolution of images (n, channels, h, w): (n, out channels, h_out, w_out)."""
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _with_weights("conv2d", input, weight, bias, **settings)


@_one_sample_too(5)
def conv3d(
    input,
    weight,
    bias=None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: Int = 1,
) -> Tensor:
    """Return the convolution of volumes (n, channels, d, h, w)."""
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _with_weights("conv3d", input, weight, bias, **settings)


@_one_sample_too(3)
def conv_transpose1d(
    input,
    weight,
    bias=None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: Int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Return the transposed convolution of sequences."""
    return _with_weights(
        "conv_transpose1d",
        input,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        groups=groups,
        dilation=dilation,
    )


@_one_sample_too(4)
def conv_transpose2d(
    input,
    weight,
    bias=None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: Int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Return the transposed convolution of images."""
    return _with_weights(
        "conv_transpose2d",
        input,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        groups=groups,
        dilation=dilation,
    )


@_one_sample_too(4)
def unfold(
    input, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """Return each window of the images as a column: (n, channels · kh · kw, windows).

    images: (n, channels, h, w).
    """
    settings = {"dilation": dilation, "padding": padding, "stride": stride}
    return apply("unfold", input, kernel_size=kernel_size, **settings)


@_one_sample_too(3)
def fold(
    input,
    output_size: Size,
    kernel_size: Size,
    dilation: Size = 1,
    padding: Size = 0,
    stride: Size = 1,
) -> Tensor:
    """Return images of `output_size` from columns; overlapping windows add up.

    columns: (n, channels · kh · kw, windows) → (n, channels, *output_size).
    """
    settings = {"dilation": dilation, "padding": padding, "stride": stride}
    return apply("fold", input, output_size=output_size, kernel_size=kernel_size, **settings)


# ---- pooling ---------------------------------------------------------------------------------


@_one_sample_too(3)
def max_pool1d(
    input,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the largest entry of each window of sequences; return_indices also gives where."""
    settings = {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
    }
    y = apply("max_pool1d", input, **settings)
    if not return_indices:
        return y
    x = _array(input)
    return y, Tensor(kernels.max_pool1d(x, **settings, return_indices=True)[1])


@_one_sample_too(4)
def max_pool2d(
    input,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the largest entry of each window of images; return_indices also gives where."""
    settings = {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
    }
    y = apply("max_pool2d", input, **settings)
    if not return_indices:
        return y
    x = _array(input)
    return y, Tensor(kernels.max_pool2d(x, **settings, return_indices=True)[1])


def max_unpool2d(
    input,
    indices,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: tuple[int, ...] | list[int] | None = None,
) -> Tensor:
    """Return images of zeros with each entry at the position that `indices` gives it."""
    indices = _array(indices)
    if indices.ndim == 3:  # one sample without the batch axis
        settings = (kernel_size, stride, padding, output_size)
        y = max_unpool2d(_tensor(input).reshape(1, *input.shape), indices[None], *settings)
        return y.reshape(*y.shape[1:])
    return apply(
        "max_unpool2d",
        input,
        indices=indices,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        output_size=output_size,
    )


@_one_sample_too(3)
def avg_pool1d(
    input,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Return the mean of each window of sequences."""
    return apply(
        "avg_pool1d",
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


@_one_sample_too(4)
def avg_pool2d(
    input,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Int | None = None,
) -> Tensor:
    """Return the mean of each window of images."""
    return apply(
        "avg_pool2d",
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
    )


@_one_sample_too(3)
def adaptive_avg_pool1d(input, output_size: Size) -> Tensor:
    """Return the means over `output_size` stretches of sequences."""
    return apply("adaptive_avg_pool1d", input, output_size=output_size)


@_one_sample_too(4)
def adaptive_avg_pool2d(input, output_size: Size | tuple[int | None, int | None]) -> Tensor:
    """Return the means over `output_size` rectangles of images."""
    return apply("adaptive_avg_pool2d", input, output_size=output_size)


@_one_sample_too(3)
def lp_pool1d(
    input,
    norm_type: Number,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the p-norm of each window of sequences, p = norm_type."""
    settings = {"kernel_size": kernel_size, "stride": stride, "ceil_mode": ceil_mode}
    return apply("lp_pool1d", input, norm_type=norm_type, **settings)


@_one_sample_too(4)
def lp_pool2d(
    input,
    norm_type: Number,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the p-norm of each window of images, p = norm_type."""
    settings = {"kernel_size": kernel_size, "stride": stride, "ceil_mode": ceil_mode}
    return apply("lp_pool2d", input, norm_type=norm_type, **settings)


# ---- normalisation ---------------------------------------------------------------------------


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training: bool = False,
    momentum: Number = 0.1,
    eps: Number = 1e-5,
) -> Tensor:
    """Return the input normalised for each channel over the batch.

    With training=True, running_mean and running_var (tensors or arrays, or None) are updated in
    place, as in torch; they get no gradient. input (n, c, …); weight, bias and the running ones:
    (c,) or None.
    """
    mean, var = _array(running_mean), _array(running_var)
    settings = {"training": training, "momentum": momentum, "eps": eps}
    y = _with_running("batch_norm", input, mean, var, weight, bias, **settings)
    if training:
        _update(kernels.batch_norm_statistics, input, mean, var, momentum)
    return y


def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats: bool = True,
    momentum: Number = 0.1,
    eps: Number = 1e-5,
) -> Tensor:
    """Return the input normalised for each sample and channel.

    With use_input_stats=True, running statistics that are given are updated in place. Shapes as in
    `batch_norm`.
    """
    mean, var = _array(running_mean), _array(running_var)
    settings = {"use_input_stats": use_input_stats, "momentum": momentum, "eps": eps}
    y = _with_running("instance_norm", input, mean, var, weight, bias, **settings)
    if use_input_stats:
        _update(kernels.instance_norm_statistics, input, mean, var, momentum)
    return y


def group_norm(input, num_groups: Int, weight=None, bias=None, eps: Number = 1e-5) -> Tensor:
    """Return the input normalised for each sample over groups of channels.

    input (n, c, …), num_groups divides c; weight, bias: (c,) or None.
    """
    return _with_weights("group_norm", input, weight, bias, num_groups=num_groups, eps=eps)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps: Number = 1e-5) -> Tensor:
    """Return the input normalised over its last axes.

    weight, bias: of normalized_shape, the lengths of the last axes, or None.
    """
    settings = {"normalized_shape": normalized_shape, "eps": eps}
    return _with_weights("layer_norm", input, weight, bias, **settings)


def rms_norm(input, normalized_shape, weight=None, eps: Number | None = None) -> Tensor:
    """Return the input over its root mean square along the last axes."""
    settings = {"normalized_shape": normalized_shape, "eps": eps}
    return _with_weights("rms_norm", input, weight, None, **settings)


def local_response_norm(
    input, size: Int, alpha: Number = 1e-4, beta: Number = 0.75, k: Number = 1.0
) -> Tensor:
    """Return the input over a power of the mean square of its neighbouring channels."""
    return apply("local_response_norm", input, size=size, alpha=alpha, beta=beta, k=k)


# ---- losses ----------------------------------------------------------------------------------


def mse_loss(input, target, *, reduction: str = "mean") -> Tensor:
    """Return the squared error."""
    return _loss("mse_loss", input, target, reduction)


def l1_loss(input, target, *, reduction: str = "mean") -> Tensor:
    """Return the absolute error."""
    return _loss("l1_loss", input, target, reduction)


def binary_cross_entropy(input, target, weight=None, *, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of probabilities and targets in [0, 1]."""
    weight = _constant("weight", weight)
    return _loss("binary_cross_entropy", input, target, reduction, weight=weight)


def binary_cross_entropy_with_logits(
    input, target, weight=None, *, reduction: str = "mean", pos_weight=None
) -> Tensor:
    """Return the cross-entropy of σ(input) and targets in [0, 1]."""
    weights = {"weight": weight, "pos_weight": pos_weight}
    weights = {name: _constant(name, value) for name, value in weights.items()}
    return _loss("binary_cross_entropy_with_logits", input, target, reduction, **weights)


def smooth_l1_loss(input, target, *, reduction: str = "mean", beta: Number = 1.0) -> Tensor:
    """Return the squared error where it is small and the absolute error where it is large."""
    return _loss("smooth_l1_loss", input, target, reduction, beta=beta)


def huber_loss(input, target, reduction: str = "mean", delta: Number = 1.0) -> Tensor:
    """Return delta times the smooth absolute error."""
    return _loss("huber_loss", input, target, reduction, delta=delta)


@_one_label_too
def nll_loss(
    input, target, weight=None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Return minus the log-probability of each sample's label.

    input: log-probabilities (n, classes, …), target: labels (n, …); weight: (classes,).
    """
    settings = {"weight": _constant("weight", weight), "ignore_index": ignore_index}
    return _loss("nll_loss", input, target, reduction, **settings)


@_one_label_too
def cross_entropy(
    input,
    target,
    weight=None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: Number = 0.0,
) -> Tensor:
    """Return the cross-entropy of softmax(input) and labels or target probabilities.

    input: logits (n, classes, …); target: labels (n, …) or probabilities of input's shape; weight:
    (classes,).
    """
    settings = {"weight": _constant("weight", weight), "ignore_index": ignore_index}
    settings["label_smoothing"] = label_smoothing
    return _loss("cross_entropy", input, target, reduction, **settings)


@_one_label_too
def multi_margin_loss(
    input, target, p: int = 1, margin: Number = 1.0, weight=None, *, reduction: str = "mean"
) -> Tensor:
    """Return the hinge loss of several classes."""
    settings = {"p": p, "margin": margin, "weight": _constant("weight", weight)}
    return _loss("multi_margin_loss", input, target, reduction, **settings)


def kl_div(input, target, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Return the divergence of target probabilities from log-probabilities `input`."""
    return _loss("kl_div", input, target, reduction, log_target=log_target)


def gaussian_kl(mean, log_variance, reduction: str = "mean") -> Tensor:
    """Return the divergence of normal distributions from the standard one."""
    return apply("gaussian_kl", mean, log_variance, reduction=reduction)


def margin_ranking_loss(
    input1, input2, target, margin: Number = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """Return how far the pair is from the order that target (±1) says, with a margin."""
    settings = {"target": _constant("target", target), "margin": margin, "reduction": reduction}
    return apply("margin_ranking_loss", input1, input2, **settings)


def hinge_embedding_loss(input, target, margin: Number = 1.0, *, reduction: str = "mean") -> Tensor:
    """Return the distance `input` of like pairs, and what unlike ones lack to the margin."""
    return _loss("hinge_embedding_loss", input, target, reduction, margin=margin)


def cosine_embedding_loss(
    input1, input2, target, margin: Number = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """Return 1 - cos of like pairs, and what the cosine of unlike ones has above the margin."""
    settings = {"target": _constant("target", target), "margin": margin, "reduction": reduction}
    return apply("cosine_embedding_loss", input1, input2, **settings)


def contrastive_loss(
    input1, input2, target, margin: Number = 1.0, reduction: str = "mean"
) -> Tensor:
    """Return half the squared distance of like pairs, or what unlike ones lack to the margin."""
    settings = {"target": _constant("target", target), "margin": margin, "reduction": reduction}
    return apply("contrastive_loss", input1, input2, **settings)


def triplet_margin_loss(
    anchor,
    positive,
    negative,
    margin: Number = 1.0,
    p: Number = 2.0,
    eps: Number = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Return max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    settings = {"margin": margin, "p": p, "eps": eps, "swap": swap, "reduction": reduction}
    return apply("triplet_margin_loss", anchor, positive, negative, **settings)


def zero_one_loss(margin, reduction: str = "mean") -> Tensor:
    """Return 1 where the margin is not positive."""
    return apply("zero_one_loss", margin, reduction=reduction)


def perceptron_loss(margin, reduction: str = "mean") -> Tensor:
    """Return max(0, -margin)."""
    return apply("perceptron_loss", margin, reduction=reduction)


def hinge_loss(margin, reduction: str = "mean") -> Tensor:
    """Return max(0, 1 - margin)."""
    return apply("hinge_loss", margin, reduction=reduction)


def logistic_loss(margin, reduction: str = "mean") -> Tensor:
    """Return log(1 + e^-margin)."""
    return apply("logistic_loss", margin, reduction=reduction)


def negative_sampling_loss(
    hidden,
    weight,
    target,
    noise,
    reduction: str = "mean",
    *,
    remove_accidental_hits: bool = False,
) -> Tensor:
    """Return -log σ(h·w) of the target and -log σ(-h·w) of each noise word, rows of weight.

    hidden: (n, d), weight: (words, d), target: (n,), noise: (n, k). (Mikolov et al., 2013.)
    """
    settings = {"noise": _constant("noise", noise)}
    settings["remove_accidental_hits"] = remove_accidental_hits
    return _word_loss("negative_sampling_loss", hidden, weight, target, reduction, **settings)


def hierarchical_softmax_loss(
    hidden, weight, target, codes, points, reduction: str = "mean"
) -> Tensor:
    """Return -log p of the target, a walk down the tree that codes and points describe.

    hidden: (n, d), weight: (words - 1, d), target: (n,); codes and points: (words, longest way).
    (Morin and Bengio, 2005.)
    """
    settings = {"codes": _constant("codes", codes), "points": _constant("points", points)}
    return _word_loss("hierarchical_softmax_loss", hidden, weight, target, reduction, **settings)


def glove_loss(
    center,
    context,
    center_bias,
    context_bias,
    counts,
    reduction: str = "mean",
    *,
    x_max: Number = 100.0,
    alpha: Number = 0.75,
) -> Tensor:
    """Return f(x) (w·w̃ + b + b̃ - log x)² of pairs that occurred together x times.

    center, context: (n, d); biases and counts x: (n,). (Pennington, Socher and Manning, 2014.)
    """
    settings = {"reduction": reduction, "x_max": x_max, "alpha": alpha}
    inputs = (center, context, center_bias, context_bias)
    return apply("glove_loss", *inputs, counts=_constant("counts", counts), **settings)


def roi_pool(input, boxes, output_size: Size, spatial_scale: Number = 1.0) -> Tensor:
    """Return the largest entry in each cell of a grid over each box (image, x1, y1, x2, y2).

    input (n, c, h, w), boxes (k, 5) → (k, c, h_out, w_out); boxes get no gradient.
    """
    boxes = _constant("boxes", boxes)
    settings = {"output_size": output_size, "spatial_scale": spatial_scale}
    return apply("roi_pool", input, boxes=boxes, **settings)


def roi_align(
    input,
    boxes,
    output_size: Size,
    spatial_scale: Number = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Return means of interpolated values in each cell of a grid over each box.

    Shapes as in `roi_pool`; the settings are explained at `kernels.roi_align`.
    """
    return apply(
        *("roi_align", input),
        boxes=_constant("boxes", boxes),
        output_size=output_size,
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )


def gram_matrix(input) -> Tensor:
    """Return the products of the channels of each sample, divided by c h w: (n, c, c)."""
    return apply("gram_matrix", input)


def total_variation(input) -> Tensor:
    """Return the sum of |differences| between neighbouring pixels."""
    return apply("total_variation", input)


def content_loss(input, target) -> Tensor:
    """Return the mean squared difference of two images' features."""
    return apply("content_loss", input, target=_constant("target", target))


def style_loss(input, target) -> Tensor:
    """Return the mean squared difference of the input's Gram matrix and target, another one."""
    return apply("style_loss", input, target=_constant("target", target))


def reparameterize(mean, log_var, noise) -> Tensor:
    """Return mean + e^(log_var / 2) noise."""
    return apply("reparameterize", mean, log_var, noise)


def _attention(op: str, query, key, value, attn_mask, **settings) -> Tensor:
    inputs = (query, key) if value is None else (query, key, value)
    if attn_mask is not None:
        attn_mask = _tensor(attn_mask)
        if attn_mask.dtype in _validate.FLOATS:  # it may be trained, as a bias of positions is
            return apply(op, *inputs, attn_mask, count=len(inputs), **settings)
        attn_mask = attn_mask.data
    return apply(op, *inputs, attn_mask=attn_mask, count=len(inputs), **settings)


def _with_weights(op: str, input, weight, bias, **settings) -> Tensor:
    """Apply an operation of (input, weight, bias), of which the last two may be None."""
    if weight is None and bias is not None:
        weight = np.ones_like(_array(bias))
    given = [x for x in (weight, bias) if x is not None]
    return apply(op, input, *given, **settings)


def _with_running(op: str, input, mean, var, weight, bias, **settings) -> Tensor:
    # The backward pass must see the statistics of now: copies, since ours change in place.
    mean, var = (None if array is None else array.copy() for array in (mean, var))
    statistics = {"running_mean": mean, "running_var": var}
    return _with_weights(op, input, weight, bias, **statistics, **settings)


def _update(statistics, input, mean, var, momentum) -> None:
    """Put new running statistics in place of the old ones."""
    if mean is not None and var is not None:
        mean[...], var[...] = statistics(_array(input), mean, var, momentum)


def _array(value):
    return value.data if isinstance(value, Tensor) else value


def _tensor(value) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor(value)


def _dropout(input: Tensor, shape: tuple, p, training: bool, generator) -> Tensor:
    p = _validate.number("p", p, low=0, high=1)
    if not isinstance(training, bool):
        raise TypeError(f"training must be True or False, got {type(training).__name__}")
    if not training or p == 0:
        return input
    if generator is None:
        generator = random.generator()
    _validate.generator("generator", generator)
    keep = np.asarray(generator.random(shape, dtype=np.float32) >= p)
    return apply("dropout", input, keep=keep, p=p)


def _loss(op: str, input, target, reduction: str, **settings) -> Tensor:
    target = _constant("target", target)
    return apply(op, input, target=target, reduction=reduction, **settings)


def _word_loss(op: str, hidden, weight, target, reduction: str, **settings) -> Tensor:
    target = _constant("target", target)
    return apply(op, hidden, weight, target=target, reduction=reduction, **settings)


def _constant(name: str, value) -> np.ndarray | None:
    """Return the array of what gets no gradient; ValueError for a tensor that wants one."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ValueError(f"{name} gets no gradient: pass {name}.detach()")
        value = value.data
    return None if value is None else np.asarray(value)
