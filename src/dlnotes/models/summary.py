"""What a network is made of: shapes, parameters, work and receptive field, layer by layer."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from dlnotes import _validate
from dlnotes.autograd import Tensor
from dlnotes.models import _engine


@dataclass(frozen=True)
class Layer:
    """A row of a summary: one call of one layer.

    `macs` counts products of a weight and an input that are added up, for the whole input; biases,
    normalisation, activations and pooling are not counted. `receptive_field` is the side of the
    square (or the sides) of the input that one output can see, None where that has no meaning.
    `output_shape` has the batch axis.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    receptive_field: int | tuple[int, ...] | None


class Summary:
    """The rows of `summary`, in the order of the calls; printed, or in a notebook, it is a table.

    `parameters`, `macs`: those of the whole network. `pandas.DataFrame(s.rows)` is the table as
    data, `len(s)`, `s[i]` and iteration give the rows.
    """

    def __init__(self, title: str, rows: list[Layer], parameters: int):
        self.title, self.rows, self.parameters = title, rows, parameters

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of all layers."""
        return sum(row.macs for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def _cells(self) -> list[list[str]]:
        heads = ["layer", "type", "output shape", "parameters", "MACs", "receptive field"]
        total = ["total", "", "", f"{self.parameters:,}", f"{self.macs:,}", ""]
        return [heads, *([_cell(row, f.name) for f in fields(row)] for row in self.rows), total]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if column > 2 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([self.title, rule, lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def _repr_html_(self) -> str:
        heads, *rows = self._cells()
        body = [f"<caption>{self.title}</caption>", _html(heads, "th"), *(_html(r) for r in rows)]
        return f"<table>{''.join(body)}</table>"


def summary(net, *inputs) -> Summary:
    """Run the network once and return what each of its layers does.

    inputs: for each input a shape, batch axis included, of which zeros are made in the dtype of the
    parameters; or an array or tensor, as a network of words needs. The network is run in evaluation
    mode (what runs in training only, as GoogLeNet's side heads, counts among the parameters alone)
    and is left as it was. Layers are the modules without modules inside, attention, and those that
    hold parameters of their own beside modules; one that is called twice has two rows, its
    parameters in the first. Works on every engine, and on torch's meta device without any memory.

    The receptive field follows each path through the network, and is the widest of all; it counts
    windows alone (not that normalisation looks at the whole image), as if there were no border.
    Raises ValueError without inputs.
    """
    if not inputs:
        raise ValueError("inputs must hold a shape, array or tensor for each input of the network")
    inputs = [_input(net, given) for given in inputs]
    names = {module: name for name, module in net.named_modules()}
    rows, counted, tracer = [], set(), _Fields(inputs)

    def record(module, arguments, output):
        first = output[0] if isinstance(output, tuple) else output
        macs = 0
        if _is_whole(module):
            tracer.follow(module, arguments[0], first)
            macs = _macs(module, arguments, first)
        parameters = [p for p in _own_parameters(module) if p not in counted]
        counted.update(parameters)
        sizes = (tuple(first.shape), sum(math.prod(p.shape) for p in parameters), macs)
        rows.append(Layer(names[module], type(module).__name__, *sizes, tracer.size(first)))

    with contextlib.ExitStack() as stack:
        for module in _layers(net):
            stack.enter_context(module.register_forward_hook(record))
        stack.enter_context(_evaluation(net))
        net(*inputs)
    return Summary(type(net).__name__, rows, count_parameters(net))


def count_parameters(net, trainable_only: bool = False) -> int:
    """Return how many numbers the network's parameters hold, shared ones once.

    With trainable_only=True, those that require no gradient are left out. net: of any engine. Cost:
    one step for each parameter tensor.
    """
    return sum(
        math.prod(p.shape) for p in net.parameters() if p.requires_grad or not trainable_only
    )


def receptive_field(layers: Iterable) -> int:
    """Return the receptive field of a chain of windows, along one axis, in pixels of the input.

    layers: for each window, first to last, its kernel size, or (kernel_size, stride, padding,
    dilation), of which the last ones may be left out. r = 1 + Σ dilation · (kernel_size - 1) ·
    jump, where jump is the product of all strides before (Araujo, Norris and Sim, 2019). Padding
    moves the field and does not change its size. ValueError for a layer of no or more than four
    numbers, and for a kernel size, stride or dilation below 1.
    """
    size, jump = 1, 1
    for layer in layers:
        layer = layer if isinstance(layer, tuple | list) else (layer,)
        if not 1 <= len(layer) <= 4:
            raise ValueError(f"a layer must hold one to four numbers, got {layer}")
        kernel_size, stride, _, dilation = (*layer, *(1, 0, 1)[len(layer) - 1 :])
        size += _validate.integer("dilation", dilation, low=1) * (
            _validate.integer("kernel_size", kernel_size, low=1) - 1
        ) * jump  # fmt: skip
        jump *= _validate.integer("stride", stride, low=1)
    return size


# ---- tracing -------------------------------------------------------------------------------------


class _Fields:
    """The receptive field of each tensor on the way, as (size, jump) along each axis.

    A window of k pixels, d apart, adds (k - 1) d jumps to the size; its stride multiplies the jump,
    the distance in the input of two neighbours in the output. What happens between two layers
    (sums, joins, reshaping) is looked up in what the engine has recorded for the backward pass.
    """

    def __init__(self, inputs):
        self.fields = {}  # what recorded the tensor → one (size, jump) for each axis, or None
        for x in inputs:
            if x.requires_grad and x.ndim > 2:
                self.fields[x] = ((1, 1),) * (x.ndim - 2)

    def follow(self, module, x, y) -> None:
        """Enter the field of a layer's output."""
        field = self.of(_node(x))
        if field is not None:
            field = _through(module, field, tuple(x.shape[2:]))
        self.fields[_node(y)] = field

    def size(self, y) -> int | tuple[int, ...] | None:
        """Return the size of the field, one number if it is the same along all axes."""
        field = self.of(_node(y))
        if field is None:
            return None
        sizes = tuple(size for size, _ in field)
        return sizes[0] if len(set(sizes)) == 1 else sizes

    def of(self, node):
        """Return the widest field of the tensors that a recorded one was computed from."""
        if node not in self.fields:
            found = [self.of(source) for source in _sources(node)]
            found = [field for field in found if field is not None]
            self.fields[node] = _widest(found) if found else None
        return self.fields[node]


def _node(x):
    """Return what stands for a tensor in the engine's record: itself, or torch's function."""
    return x if isinstance(x, Tensor) or x.grad_fn is None else x.grad_fn


def _sources(node) -> list:
    if isinstance(node, Tensor):
        return list(node.parents)
    functions = [function for function, _ in getattr(node, "next_functions", ()) if function]
    return [getattr(function, "variable", function) for function in functions]  # a leaf, as such


def _widest(fields):
    if len({len(field) for field in fields}) > 1:
        return None
    return tuple(max(along) for along in zip(*fields, strict=True))


# Layers whose outputs are no longer pixels in the order of the input's.
_WITHOUT_FIELD = {
    "Linear",
    "Bilinear",
    "MultiheadAttention",
    "RNN",
    "LSTM",
    "GRU",
    "Fold",
    "Unfold",
}
_WITHOUT_FIELD |= {"MaxUnpool1d", "MaxUnpool2d", "ConvTranspose1d", "ConvTranspose2d"}


def _through(module, field, sides):
    """Return the field behind a layer; one that is neither convolution nor pooling leaves it."""
    kind = type(module).__name__
    if len(sides) != len(field):
        return None  # no image any more
    if kind in _WITHOUT_FIELD:
        return None
    if "AdaptiveAvgPool" in kind:
        windows = _adaptive_windows(module.output_size, sides)
    elif hasattr(module, "kernel_size"):
        settings = (module.kernel_size, module.stride or module.kernel_size)
        settings = (*settings, getattr(module, "dilation", 1))
        windows = zip(*(_for_each_axis(value, len(sides)) for value in settings), strict=True)
    else:
        return field
    return tuple(
        (size + (kernel - 1) * dilation * jump, jump * stride)
        for (size, jump), (kernel, stride, dilation) in zip(field, windows, strict=True)
    )


def _adaptive_windows(output_size, sides):
    sizes = _for_each_axis(output_size, len(sides))
    for side, size in zip(sides, sizes, strict=True):
        size = side if size is None else size
        widest = max(-(-(i + 1) * side // size) - i * side // size for i in range(size))
        yield widest, max(1, side // size), 1


def _for_each_axis(value, axes: int) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * axes


# ---- counting ------------------------------------------------------------------------------------


def _macs(module, arguments, y) -> int:
    """Return the multiply-accumulates of one call."""
    kind, x = type(module).__name__, arguments[0]
    if kind == "MultiheadAttention":
        return _attention_macs(module, *arguments[:3])
    if kind in ("RNN", "LSTM", "GRU"):
        positions = math.prod(x.shape[:-1])
        return positions * sum(math.prod(p.shape) for p in module.parameters() if p.ndim == 2)
    weight = getattr(module, "weight", None)
    if weight is None:
        return 0
    if "ConvTranspose" in kind:
        return math.prod(x.shape) * math.prod(weight.shape[1:])
    if kind in ("Linear", "Bilinear") or "Conv" in kind:
        return math.prod(y.shape) * math.prod(weight.shape[1:])
    return 0


def _attention_macs(module, query, key, value) -> int:
    """Four projections, and for each pair of positions a score and a weighted value."""
    d, batch_axis = module.embed_dim, 0 if module.batch_first else 1
    n = query.shape[batch_axis] if query.ndim == 3 else 1
    length, keys = math.prod(query.shape[:-1]), math.prod(key.shape[:-1])
    return d * d * (2 * length + 2 * keys) + 2 * length * (keys // n) * d


def _layers(module) -> set:
    """Return the modules that get a row, in and below this one."""
    if _is_whole(module):
        return {module}
    own = {module} if _own_parameters(module) else set()
    return own.union(*map(_layers, module.children()))


def _is_whole(module) -> bool:
    """Say whether a module is counted as one, without looking at what is inside."""
    return type(module).__name__ == "MultiheadAttention" or not list(module.children())


def _own_parameters(module) -> list:
    if _is_whole(module):
        return list(module.parameters())
    return [parameter for name, parameter in module.named_parameters() if "." not in name]


# ---- the rest ------------------------------------------------------------------------------------


def _input(net, given):
    """Return an input, zeros where a shape is given; floats require a gradient, to be traced."""
    if isinstance(given, tuple | list):
        sides = [_validate.integer("inputs", side, low=0) for side in given]
        values = np.zeros(sides, np.float32)
    else:
        values = np.asarray(_validate.without_tensor(given))
    x = _engine.constant(values, _engine.sample(net))
    x.requires_grad = values.dtype in _validate.FLOATS
    return x


@contextlib.contextmanager
def _evaluation(net) -> Iterator[None]:
    """Put the network into evaluation mode, and each module back into its own mode after."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _cell(row: Layer, name: str) -> str:
    value = getattr(row, name)
    if name in ("parameters", "macs"):
        return f"{value:,}" if value else ""
    if name == "receptive_field":
        return "" if value is None else str(value)
    return str(value)


def _html(cells: list[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"
