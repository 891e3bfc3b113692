"""ONNX's own test cases of operators, for those that the library has.

The `onnx` package brings each case as a graph of one node with inputs and outputs. An adapter below
says how the operator is written with the library's functions. Every case of such an operator must
pass, or not be covered for a reason that stands below; every other operator is named with the
reason why there is no adapter. Outputs that the library does not give (saved statistics) are None.
"""

import functools
import math
import re
import warnings

import conformance_helpers as conformance
import core_helpers as h
import numpy as np

from dlnotes import autograd, kernels
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F

ADAPTERS = {}  # operator → function of (inputs, attributes) that returns a list of outputs


class NotCovered(ValueError):
    """What the library leaves out."""


def adapter(*names):
    def enter(function):
        ADAPTERS.update(dict.fromkeys(names, function))
        return function

    return enter


def result(y) -> list:
    return [np.asarray(y.data if isinstance(y, Tensor) else y)]


# ---- operators that are one function, or an expression ---------------------------------------

SIMPLE = {
    "Sigmoid": F.sigmoid,
    "Tanh": F.tanh,
    "Relu": F.relu,
    "Softplus": F.softplus,
    "Neg": lambda x: -x,
    "Abs": Tensor.abs,
    "Exp": Tensor.exp,
    "Log": Tensor.log,
    "Sqrt": Tensor.sqrt,
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "MatMul": lambda a, b: a @ b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Where": lambda condition, a, b: autograd.where(condition.data, a, b),
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "Gelu": lambda x, approximate="none": F.gelu(x, approximate),
    "Swish": lambda x, alpha=1.0: F.silu(x * alpha) / alpha,
    "Softmax": lambda x, axis=-1: F.softmax(x, axis),
    "LogSoftmax": lambda x, axis=-1: F.log_softmax(x, axis),
    "Concat": lambda *x, axis: autograd.cat(x, axis),
    "Transpose": lambda x, perm=None: x.T if perm is None else x.permute(*perm),
    "GlobalAveragePool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "GlobalMaxPool": lambda x: F.max_pool2d(x, x.shape[2:]),
    "InstanceNormalization": lambda x, scale, b, epsilon=1e-5: F.instance_norm(
        x, weight=scale, bias=b, eps=epsilon
    ),
    "GroupNormalization": lambda x, scale, b, num_groups, epsilon=1e-5: F.group_norm(
        x, num_groups, scale, b, epsilon
    ),
    "LRN": lambda x, size, alpha=1e-4, beta=0.75, bias=1.0: F.local_response_norm(
        x, size, alpha, beta, bias
    ),
    "MeanVarianceNormalization": lambda x: F.batch_norm(x, None, None, training=True, eps=1e-12),
}  # fmt: skip


@adapter(*SIMPLE)
def simple(inputs, attributes, op):
    return result(SIMPLE[op](*map(Tensor, inputs), **attributes))


@adapter("Div")
def divide(inputs, attributes):
    if inputs[0].dtype.kind in "iu":
        raise NotCovered("whole numbers")
    return result(Tensor(inputs[0]) / Tensor(inputs[1]))


@adapter("Pow")
def power(inputs, attributes):
    if inputs[1].size != 1:
        raise NotCovered("an array of exponents")
    return result(Tensor(inputs[0]) ** inputs[1].item())


@adapter("Clip")
def clip(inputs, attributes):
    low, high = (None if bound is None else bound.item() for bound in (*inputs[1:], None, None)[:2])
    x = Tensor(inputs[0])
    return result(x if low is high is None else x.clamp(low, high))


@adapter("Reshape")
def reshape(inputs, attributes):
    if attributes.get("allowzero"):
        raise NotCovered("allowzero")
    x, shape = inputs
    return result(Tensor(x).reshape(*(n or x.shape[i] for i, n in enumerate(map(int, shape)))))


@adapter("Flatten")
def flatten(inputs, attributes):
    x, axis = inputs[0], attributes.get("axis", 1)
    rows = math.prod(x.shape[:axis])  # torch keeps the axes in front, ONNX joins them
    return result(Tensor(x).flatten().reshape(rows, -1))


@adapter("Squeeze")
def squeeze(inputs, attributes):
    return result(Tensor(inputs[0]).squeeze(tuple(map(int, inputs[1]))))


@adapter("Unsqueeze")
def unsqueeze(inputs, attributes):
    x, axes = Tensor(inputs[0]), inputs[1]
    for axis in sorted(int(a) % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return result(x)


@adapter("Split")
def split(inputs, attributes):
    x, axis, parts = Tensor(inputs[0]), attributes.get("axis", 0), attributes["outputs"]
    sizes = -(-x.shape[axis] // parts) if len(inputs) < 2 else list(map(int, inputs[1]))
    return [part.data for part in x.split(sizes, axis)]


@adapter("Slice")
def slices(inputs, attributes):
    x, starts, ends, *rest = inputs
    axes = rest[0] if rest else range(len(starts))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        first, last = int(start), int(end)
        if step < 0 and last < -x.shape[axis]:
            last = None
        index[axis] = slice(first, last, int(step))
    return result(Tensor(x)[tuple(index)])


@adapter("ReduceSum", "ReduceMean", "ReduceMax")
def reduce(inputs, attributes, op):
    x, axes = Tensor(inputs[0]), inputs[1] if len(inputs) > 1 else ()
    if not len(axes) and attributes.get("noop_with_empty_axes"):
        return result(x)
    method = {"ReduceSum": x.sum, "ReduceMean": x.mean, "ReduceMax": x.max}[op]
    axis = tuple(map(int, axes)) if len(axes) else None
    return result(method(axis, keepdims=bool(attributes.get("keepdims", 1))))


@adapter("Gemm")
def gemm(inputs, attributes):
    a, b, *c = map(Tensor, inputs)
    y = (a.T if attributes.get("transA") else a) @ (b.T if attributes.get("transB") else b)
    y = y * attributes.get("alpha", 1.0)
    return result(y + c[0] * attributes.get("beta", 1.0) if c else y)


# ---- convolution and pooling -----------------------------------------------------------------


def paddings(size, kernel, attributes) -> list[tuple[int, int]]:
    """Return the padding in front of and behind each axis."""
    axes = len(kernel)
    strides, dilations = (attributes.get(k, [1] * axes) for k in ("strides", "dilations"))
    auto = attributes.get("auto_pad", "NOTSET")
    if not auto.startswith("SAME"):
        pads = attributes.get("pads", [0] * 2 * axes)
        return list(zip(pads[:axes], pads[axes:], strict=True))
    pairs = []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        less = total // 2
        pairs.append((less, total - less) if auto == "SAME_UPPER" else (total - less, less))
    return pairs


def padded(x, pairs, value=0.0) -> Tensor:
    """Return x with padding that differs in front and behind, which torch takes as `pad`."""
    return F.pad(x, [p for pair in reversed(pairs) for p in pair], value=value)


def symmetric(pairs) -> bool:
    return all(front == behind for front, behind in pairs)


@adapter("Conv")
def conv(inputs, attributes):
    x, weight, *bias = inputs
    pairs = paddings(x.shape[2:], weight.shape[2:], attributes)
    axes = len(pairs)
    padding = [front for front, _ in pairs]
    if not symmetric(pairs):
        x, padding = padded(x, pairs), 0
    y = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[axes](
        *(x, weight, *(bias or [None])),
        stride=attributes.get("strides", 1),
        padding=padding,
        dilation=attributes.get("dilations", 1),
        groups=attributes.get("group", 1),
    )
    return result(y)


@adapter("ConvTranspose")
def conv_transpose(inputs, attributes):
    x, weight, *bias = inputs
    axes = weight.ndim - 2
    if axes == 3:
        raise NotCovered("no conv_transpose3d")
    strides, dilations = (attributes.get(k, [1] * axes) for k in ("strides", "dilations"))
    extra = attributes.get("output_padding", [0] * axes)
    pads = attributes.get("pads", [0] * 2 * axes)
    spans = [
        s * (n - 1) + e + d * (k - 1) + 1
        for n, k, s, d, e in zip(
            x.shape[2:], weight.shape[2:], strides, dilations, extra, strict=True
        )
    ]
    shape = attributes.get("output_shape")
    if attributes.get("auto_pad", "NOTSET").startswith("SAME"):
        shape = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if shape is not None:  # what is too much goes, the larger part behind
        too_much = [span - n for span, n in zip(spans, shape, strict=True)]
        front = [t // 2 for t in too_much]
        if attributes.get("auto_pad") != "SAME_UPPER":
            front = [t - t // 2 for t in too_much]
        pads = front + [t - f for t, f in zip(too_much, front, strict=True)]
    y = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[axes](
        *(x, weight, *(bias or [None])),
        stride=strides,
        output_padding=extra,
        groups=attributes.get("group", 1),
        dilation=dilations,
    )
    return result(padded(y, [(-a, -b) for a, b in zip(pads[:axes], pads[axes:], strict=True)]))


def windows(x, attributes):
    """Return the kernel's sizes, strides, dilations and paddings of a pooling."""
    kernel = attributes["kernel_shape"]
    if len(kernel) == 3:
        raise NotCovered("no pooling of volumes")
    if x.dtype == np.uint8:
        raise NotCovered("float32 or float64, got uint8")
    strides, dilations = (attributes.get(k, [1] * len(kernel)) for k in ("strides", "dilations"))
    return kernel, strides, dilations, paddings(x.shape[2:], kernel, attributes)


def fits(kernel, pairs) -> bool:
    """Say whether torch's poolings take the padding themselves: at most half a window."""
    return symmetric(pairs) and all(2 * p <= k for k, (p, _) in zip(kernel, pairs, strict=True))


@adapter("MaxPool")
def max_pool(inputs, attributes):
    x = inputs[0]
    kernel, strides, dilations, pairs = windows(x, attributes)
    padding = [front for front, _ in pairs]
    if not fits(kernel, pairs):
        x, padding = padded(x, pairs, -np.inf), 0
    pool = {1: F.max_pool1d, 2: F.max_pool2d}[len(kernel)]
    ceil = bool(attributes.get("ceil_mode"))
    y, indices = pool(x, kernel, strides, padding, dilations, ceil, return_indices=True)
    if attributes["outputs"] == 1:
        return result(y)
    n, c, *size = inputs[0].shape
    places = np.array(np.unravel_index(indices.data, size))
    if attributes.get("storage_order"):  # column by column
        places, size = places[::-1], size[::-1]
    flat = np.ravel_multi_index(tuple(places), size)
    plane = np.arange(n * c).reshape(n, c, *[1] * len(size))  # ONNX counts through all planes
    return [y.data, flat + plane * math.prod(size)]


@adapter("AveragePool")
def average_pool(inputs, attributes):
    x = inputs[0]
    kernel, strides, dilations, pairs = windows(x, attributes)
    if any(d > 1 for d in dilations):
        raise NotCovered("average pooling has no dilation")
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d}[len(kernel)]
    include, ceil = bool(attributes.get("count_include_pad")), bool(attributes.get("ceil_mode"))
    if fits(kernel, pairs):
        return result(pool(x, kernel, strides, [p for p, _ in pairs], ceil, include))
    y = pool(padded(x, pairs), kernel, strides, 0, ceil)
    share = pool(padded(np.ones_like(x), pairs), kernel, strides, 0, ceil)
    return result(y if include else y / share)


@adapter("LpPool")
def lp_pool(inputs, attributes):
    x, p = inputs[0], attributes.get("p", 2)
    kernel, strides, dilations, pairs = windows(x, attributes)
    if any(d > 1 for d in dilations):
        raise NotCovered("norm pooling has no dilation")
    pool = {1: F.lp_pool1d, 2: F.lp_pool2d}[len(kernel)]
    # torch leaves the sign to odd powers, ONNX does not.
    return result(pool(padded(np.abs(x), pairs), p, kernel, strides))


@adapter("MaxUnpool")
def max_unpool(inputs, attributes):
    x, indices, *shape = inputs
    kernel, strides, _, pairs = windows(x, attributes)
    if shape:  # the places are those of the smaller output
        size = [(n - 1) * s + k for n, k, s in zip(x.shape[2:], kernel, strides, strict=True)]
        places = np.unravel_index(indices, (*x.shape[:2], *size))
        indices = np.ravel_multi_index(places, tuple(map(int, shape[0])))
    size = [int(n) for n in shape[0][2:]] if shape else None
    y = F.max_unpool2d(x, indices, kernel, strides, [p for p, _ in pairs], size)
    return result(y)


@adapter("Col2Im")
def col2im(inputs, attributes):
    x, size, kernel = inputs
    if len(size) == 3:
        raise NotCovered("no pooling of volumes")
    pairs = paddings(size, kernel, attributes)
    settings = [attributes.get(k, [1, 1]) for k in ("dilations", "strides")]
    size, kernel = list(map(int, size)), list(map(int, kernel))
    return result(F.fold(x, size, kernel, settings[0], [p for p, _ in pairs], settings[1]))


# ---- normalisation and dropout ---------------------------------------------------------------


@adapter("BatchNormalization")
def batch_norm(inputs, attributes):
    x, scale, bias, mean, var = inputs
    new, eps = 1 - attributes.get("momentum", 0.9), attributes.get("epsilon", 1e-5)
    training = bool(attributes.get("training_mode"))
    means, variances = mean.copy(), var.copy()
    y = F.batch_norm(x, means, variances, scale, bias, training, new, eps)
    if not training:
        return result(y)
    n = x.size // x.shape[1]  # torch's running variance divides by n - 1, ONNX's by n
    return [y.data, means, var + (variances - var) * (n - 1) / n - new * var / n]


@adapter("LayerNormalization", "RMSNormalization")
def layer_norm(inputs, attributes, op):
    x, scale, *bias = inputs
    shape = x.shape[attributes.get("axis", -1) :]
    weights = [w.reshape(shape) for w in (scale, *bias)]
    if op == "RMSNormalization":
        return result(F.rms_norm(x, shape, *weights, eps=attributes.get("epsilon", 1e-5)))
    y = F.layer_norm(x, shape, *weights, eps=attributes.get("epsilon", 1e-5))
    return [y.data, None, None]


@adapter("Dropout")
def dropout(inputs, attributes):
    x, *rest = inputs
    ratio = rest[0].item() if rest and rest[0] is not None else attributes.get("ratio", 0.5)
    training = len(rest) > 1 and bool(rest[1])
    if training and ratio:
        raise NotCovered("drawn at random")
    return [F.dropout(x, float(ratio), training).data, np.ones(x.shape, bool)]


# ---- losses, tables --------------------------------------------------------------------------


@adapter("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(inputs, attributes, op):
    x, target, *weight = inputs
    settings = {
        "reduction": attributes.get("reduction", "mean"),
        "ignore_index": attributes.get("ignore_index", -100),
        "weight": weight[0] if weight else None,
    }
    if op == "NegativeLogLikelihoodLoss":
        return result(F.nll_loss(x, target, **settings))
    return [F.cross_entropy(x, target, **settings).data, F.log_softmax(x, 1).data]


@adapter("OneHot")
def one_hot(inputs, attributes):
    labels, depth, (off, on) = inputs[0].astype(int), int(inputs[1].item()), inputs[2]
    if (np.abs(labels + 0.5) > depth).any():
        raise NotCovered("labels out of range")
    codes = kernels.one_hot(labels % depth, depth)  # negative ones count from the end
    return [np.moveaxis(off + (on - off) * codes, -1, attributes.get("axis", -1))]


@adapter("Gather")
def gather(inputs, attributes):
    table, indices = inputs
    axis = attributes.get("axis", 0)
    if axis == 0 and table.ndim == 2:
        return result(F.embedding(indices, table))
    return result(Tensor(table)[(slice(None),) * axis + (indices,)])


@adapter("ScatterElements")
def scatter(inputs, attributes):
    x, indices, updates = inputs
    if attributes.get("reduction") != "add":
        raise NotCovered("a scatter that does not add")
    (row,) = x  # a single row, so that each entry is one of the table's rows
    added = kernels.scatter_add(updates.reshape(-1, 1), indices.reshape(-1), len(row))
    return [x + added.T]


@adapter("Pad")
def pad(inputs, attributes):
    x, amounts, value, axes = (*inputs, None, None)[:4]
    modes = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}
    axes = range(x.ndim) if axes is None else [int(a) % x.ndim for a in axes]
    pairs = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        pairs[axis] = (int(amounts[i]), int(amounts[i + len(axes)]))
    flat = [p for pair in reversed(pairs) for p in pair]
    value = None if value is None else value.item()
    # Entries are moved, not computed with, so integers may travel as floats.
    y = kernels.pad(x.astype(float), flat, modes[attributes.get("mode", "constant")], value)
    return [y.astype(x.dtype)]


# ---- attention, recurrent networks -----------------------------------------------------------


@adapter("Attention")
def attention(inputs, attributes):
    query, key, value, mask, past_key, past_value, lengths = (*inputs, *[None] * 4)[:7]
    for name in ("softcap", "left_window_size", "right_window_size"):
        if attributes.get(name, -1 if "window" in name else 0) not in (0.0, -1):
            raise NotCovered(name)
    if lengths is not None:
        raise NotCovered("nonpad_kv_seqlen")
    if attributes["outputs"] > 3 and attributes.get("qk_matmul_output_mode", 0) != 3:
        raise NotCovered("qk_matmul_output before the softmax")
    joined = query.ndim == 3
    if joined:
        heads = [attributes[k] for k in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
        query, key, value = (
            x.reshape(*x.shape[:2], n, -1).swapaxes(1, 2)
            for x, n in zip((query, key, value), heads, strict=True)
        )
    if past_key is not None:
        key = np.concatenate([past_key, key], axis=2)
        value = np.concatenate([past_value, value], axis=2)
    present = [key, value]
    groups = query.shape[1] // key.shape[1]  # queries that share keys: a copy for each
    key, value = (np.repeat(x, groups, axis=1) for x in (key, value))
    causal = bool(attributes.get("is_causal"))
    if causal and (mask is not None or past_key is not None):
        seen = key.shape[2] - query.shape[2] if past_key is not None else 0
        scores = np.zeros((query.shape[2], key.shape[2]), query.dtype)
        scores[np.triu(np.ones(scores.shape, bool), 1 + (seen and past_key.shape[2]))] = -np.inf
        mask = scores if mask is None else scores + as_scores(mask, query.dtype)
        causal = False
    settings = {"attn_mask": mask, "is_causal": causal, "scale": attributes.get("scale")}
    y = F.scaled_dot_product_attention(query, key, value, **settings).data
    weights = F.attention_weights(query, key, **settings).data
    y = y.swapaxes(1, 2).reshape(len(y), y.shape[2], -1) if joined else y
    return [y, *present, weights]


def as_scores(mask, dtype):
    return np.where(mask, 0, -np.inf).astype(dtype) if mask.dtype == bool else mask


@adapter("RNN", "LSTM", "GRU")
def recurrent(inputs, attributes, op):
    x, weight_ih, weight_hh, bias, lengths, h0, c0, peepholes = (*inputs, *[None] * 5)[:8]
    if peepholes is not None:
        raise NotCovered("peepholes")
    if op == "GRU" and (len(x) > 1 or bias is not None):
        raise NotCovered("linear_before_reset=0")  # as torch only where the first state is 0
    if attributes.get("layout"):
        x = x.swapaxes(0, 1)
    order = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}[op]  # torch's order of gates
    function = {"RNN": kernels.rnn, "LSTM": kernels.lstm, "GRU": kernels.gru}[op]
    directions, size = len(weight_ih), attributes["hidden_size"]
    results = []
    for d in range(directions):

        def gates(w, d=d):
            return w[d].reshape(len(order), size, *w.shape[2:])[order].reshape(w[d].shape)

        weights = [gates(weight_ih), gates(weight_hh)]
        if bias is not None:
            halves = np.split(bias, 2, axis=1)
            weights += [gates(half) for half in halves]
        zero = np.zeros((x.shape[1], size), x.dtype)
        states = [zero if s is None else s[d] for s in (h0, c0)[: 2 if op == "LSTM" else 1]]
        reverse = attributes.get("direction") == "reverse" or d == 1
        settings = {"reverse": reverse}
        if lengths is not None:
            settings["lengths"] = lengths
        results.append(function(x, *states, *weights, **settings))
    outputs = [
        np.stack(parts, axis=1 if i == 0 else 0)
        for i, parts in enumerate(zip(*results, strict=True))
    ]
    if attributes.get("layout"):
        outputs = [
            y.transpose(2, 0, 1, 3) if i == 0 else y.swapaxes(0, 1) for i, y in enumerate(outputs)
        ]
    return outputs


# ---- boxes -----------------------------------------------------------------------------------


@adapter("NonMaxSuppression")
def non_max_suppression(inputs, attributes):
    every, scores, *rest = inputs
    most, threshold, least = (x.item() for x in rest)
    rows = []
    for image, boxes in enumerate(every):
        if attributes.get("center_point_box"):
            boxes = kernels.box_convert(boxes, "cxcywh", "xyxy")
        corners = boxes.reshape(-1, 2, 2)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        for label, of_class in enumerate(scores[image]):
            likely = np.flatnonzero(of_class > least)
            kept = kernels.nms(boxes[likely], of_class[likely], threshold)[:most]
            rows += [[image, label, i] for i in likely[kept]]
    return [np.array(rows)]


@adapter("RoiAlign")
def roi_align(inputs, attributes):
    x, boxes, images = inputs
    if attributes.get("mode", "avg") == "max":
        raise NotCovered("the largest of the points")
    regions = np.concatenate([images[:, None].astype(boxes.dtype), boxes], axis=1)
    size = (attributes["output_height"], attributes["output_width"])
    aligned = attributes.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    settings = (attributes["spatial_scale"], attributes["sampling_ratio"], aligned)
    return result(F.roi_align(x, regions, size, *settings))


# ---- optimisers ------------------------------------------------------------------------------


@adapter("Adagrad", "Adam", "Momentum")
def optimiser(inputs, attributes, op):
    rate, step, *arrays = inputs
    count = {"Adagrad": 3, "Adam": 4, "Momentum": 3}[op]
    tensors = len(arrays) // count
    kinds = [arrays[i * tensors : (i + 1) * tensors] for i in range(count)]
    changed = [[np.array(a) for a in kind] for kind in (kinds[0], *kinds[2:])]
    settings = {"lr": rate.item(), "weight_decay": attributes["norm_coefficient"]}
    for i, gradient in enumerate(kinds[1]):
        parameter, *state = (kind[i] for kind in changed)
        if op == "Adagrad":
            settings |= {"lr_decay": attributes["decay_factor"], "eps": attributes["epsilon"]}
            kernels.adagrad_step(parameter, gradient, *state, int(step) + 1, **settings)
        elif op == "Adam":
            alpha, beta, number = attributes["alpha"], attributes["beta"], max(1, int(step))
            root = math.sqrt(1 - beta**number)
            # ONNX adds epsilon before the root is corrected for its bias, and corrects neither
            # mean at step 0.
            settings |= {"betas": (alpha, beta), "eps": attributes["epsilon"] / root}
            settings["lr"] = rate.item() * (1 if step else (1 - alpha) / root)
            kernels.adam_step(parameter, gradient, *state, step=number, **settings)
        else:
            settings |= {
                "momentum": attributes["alpha"],
                "dampening": 1 - (attributes["beta"] if step > 0 else 1),
                "nesterov": attributes["mode"] == "nesterov",
            }
            kernels.sgd_step(parameter, gradient, *state, **settings)
    return [a for kind in changed for a in kind]


# Whose inputs and outputs are typed with four decimals.
FOUR_DECIMALS = (
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_roialign_aligned_false",
    "test_roialign_aligned_true",
)

# ---- what is not covered ---------------------------------------------------------------------

REASONS = {
    r"float32 or float64, got|must hold floats|\bgot (u?int|bfloat16|float16)": (
        "numbers other than float32 and float64"
    ),
    r"drawn at random": "drawn at random: statistics are tested elsewhere",
    r"no conv_transpose3d|no pooling of volumes": "volumes have convolution only",
    r"has no dilation": "no dilation there, as in torch",
    r"Div: whole numbers": "/ of integers gives fractions, as in torch",
    r"ReduceMax: zero-size array": "the largest of nothing is refused, as in torch",
    r"an array of exponents": "exponents are numbers",
    r"allowzero": "0 in a shape means the length before",
    r"labels out of range": "labels out of range are refused",
    r"a scatter that does not add": "only adding scatters, for gradients of tables",
    r"softcap|window_size": "no soft cap and no window of attention",
    r"nonpad_kv_seqlen": "padding is hidden by a mask, not by lengths",
    r"qk_matmul_output before": "the scores before the softmax are not given",
    r"peepholes": "no peepholes, as in torch",
    r"linear_before_reset": "the reset gate multiplies the product, as in torch",
    r"the largest of the points": "regions are averaged, as in torchvision",
}

# Operators without an adapter.
OTHERS = {
    "numbers and bits, not networks": """
        Acos Acosh And ArgMax ArgMin Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot
        BitwiseOr BitwiseXor Cast CastLike Ceil Cos Cosh CumProd CumSum Det Equal Erf EyeLike Floor
        IsInf IsNaN Max Mean Min Mod NonZero Not Or Range Reciprocal Round Sign Sin Sinh Size Sum
        Tan Trilu Unique Xor Hardmax TopK""",
    "data structures and control flow": """
        ArrayFeatureExtractor Compress Constant ConstantOfShape Einsum Expand GatherElements
        GatherND Identity If Loop OptionalGetElement OptionalHasElement ReverseSequence Scan Scatter
        ScatterND SequenceInsert SequenceMap Shape SplitToSequence TensorScatter Tile
        CenterCropPad""",
    "reductions that the book does not need": """
        ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMin ReduceProd ReduceSumSquare
        LpNormalization""",
    "strings, trees and other classical learning": """
        Binarizer LabelEncoder RegexFullMatch StringConcat StringNormalizer StringSplit
        TfIdfVectorizer TreeEnsemble""",
    "signals and image files": """
        BlackmanWindow DFT HammingWindow HannWindow ImageDecoder MelWeightMatrix STFT""",
    "resampling": """
        AffineGrid DepthToSpace DeformConv GridSample Resize SpaceToDepth Upsample""",
    "quantised arithmetic": """
        ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul
        QuantizeLinear""",
    "activations that the book does not use": """
        Celu HardSigmoid HardSwish Mish PRelu Selu Shrink Softsign SwiGLU ThresholdedRelu""",
    "layers of large language models": """
        CausalConvWithState FlexAttention LinearAttention RotaryEmbedding""",
    "drawn at random": "Bernoulli",
}  # fmt: skip


def op_of(case) -> str:
    """Return the operator that a case is about: of a graph of one node, its own."""
    return case.model.graph.node[0].op_type


@functools.cache
def cases():
    """Return ONNX's cases; those that spell an operator out by others have the same data."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = load_model_tests(kind="node")
    plain = [case for case in every if not re.search(r"_expanded(_ver\d+)?$", case.name)]
    return plain, len(every) - len(plain)


def agrees(case) -> bool:
    from onnx import helper

    (node,) = case.model.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
    inputs, expected = case.data_sets[0]
    # What is left out has an empty name.
    given = iter(inputs)
    inputs = [next(given) if name else None for name in node.input]
    given = iter(expected)
    expected = [next(given) if name else None for name in node.output]
    function, op = ADAPTERS[node.op_type], node.op_type
    if function in (split, max_pool, attention):
        attributes["outputs"] = len(expected)
    takes_name = function in (simple, reduce, layer_norm, loss, recurrent, optimiser)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        outputs = function(inputs, attributes, *([op] if takes_name else []))
    tolerance = 1e-4 if case.name in FOUR_DECIMALS else 1e-6
    assert len(outputs) >= len(expected)
    return all(
        e is None or y is None or equal(y, e, tolerance)
        for y, e in zip(outputs, expected, strict=False)
    )


def equal(actual, expected, tolerance) -> bool:
    return actual.shape == expected.shape and np.allclose(
        actual, expected, rtol=1e-5, atol=tolerance, equal_nan=True
    )


def test_onnx_cases(capsys):
    report = conformance.Report("ONNX's cases", REASONS)
    plain, expanded = cases()
    reasons = {name: why for why, names in OTHERS.items() for name in names.split()}
    unknown, others = set(), {}
    for case in plain:
        op = op_of(case)
        if op in ADAPTERS:
            with h.shapes_unchecked():
                report.run(op, case.name, functools.partial(agrees, case))
        elif op in reasons:
            others[op] = others.get(op, 0) + 1
        else:
            unknown.add(op)
    with capsys.disabled():
        print(f"\n{len(plain)} cases of ONNX, {expanded} more that spell operators out by others")
        print(f"  {sum(others.values())} of {len(others)} operators that the library lacks")
    report.check(capsys, at_least=490)
    assert not unknown, f"operators with neither adapter nor reason: {unknown}"
    assert set(others) == set(reasons), f"no cases of {set(reasons) - set(others)}"
    assert {op for op in ADAPTERS if not report.passed[op]} == set()
