"""Drawings made by code: computational graphs, networks, flows of boxes and arrows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from dlnotes import _validate
from dlnotes.viz._style import FAINT, INK, PALETTE, subplots

_LEAF = "#dcebf5"
_OPERATION = "#fdf0d5"
_RESULT = "#d9f0e6"
_SIGNS = {
    "add": "+",
    "sub": "−",
    "mul": "×",
    "div": "÷",
    "truediv": "÷",
    "matmul": "@",
    "pow": "^",
    "neg": "−",
}


def draw_graph(
    tensor: Any,
    *,
    names: Mapping[str, Any] | None = None,
    title: str = "",
    gradients: bool = True,
) -> Figure:
    """Draw the computational graph of a `dlnotes.autograd.Tensor`.

    Inputs stand at the left, the result at the right, and every arrow runs with the forward
    computation. Each box shows the operation, its value and, once `backward` has run, its
    gradient.

    Args:
        tensor: the result whose graph is drawn.
        names: names for some of its nodes, such as `{"a": a, "J": J}`.
        title: what to see.
        gradients: show the gradients that are there.

    Returns:
        The figure; its axes are off.

    Raises:
        TypeError: if `tensor` keeps no parents.
        ValueError: if the graph has more than 40 nodes, or a name's tensor is not in it.
    """
    if not hasattr(tensor, "parents"):
        raise TypeError(f"tensor must be a dlnotes Tensor, got {type(tensor).__name__}")
    nodes = _topological(tensor)
    if len(nodes) > 40:
        raise ValueError(f"a drawing holds at most 40 nodes, the graph has {len(nodes)}")
    known = {id(node) for node in nodes}
    titles: dict[int, str] = {}
    for name, node in (names or {}).items():
        if id(node) not in known:
            raise ValueError(f"names: {name!r} is not a node of this graph")
        titles[id(node)] = name

    layers = _layers(nodes)
    width = max(4.0, 1.75 * len(layers))
    tallest = max(len(layer) for layer in layers)
    place = {
        id(node): (column, (len(layer) - 1) / 2 - row)
        for column, layer in enumerate(layers)
        for row, node in enumerate(layer)
    }
    text = {id(node): _node_text(node, titles.get(id(node)), gradients) for node in nodes}
    lines = max(entry.count("\n") + 1 for entry in text.values())
    step = 0.30 + 0.22 * lines
    fig, ax = _canvas((width, max(1.6, step * tallest + (0.5 if title else 0.2))), title)
    ax.set_xlim(-0.5, len(layers) - 0.5)
    ax.set_ylim(-tallest / 2, tallest / 2)
    half = 0.5 * 0.22 * (lines + 0.6) / step
    for node in nodes:
        x, y = place[id(node)]
        if node is tensor:
            fill = _RESULT
        else:
            fill = _OPERATION if node.parents else _LEAF
        _box(ax, x, y, 0.36, half, text[id(node)], fill)
        for number, parent in enumerate(node.parents):
            from_x, from_y = place[id(parent)]
            # A tensor that enters twice (a + a) gets two arrows, bent to different sides.
            twice = sum(parent is other for other in node.parents) > 1
            bend = (0.25 if number % 2 else -0.25) if twice else 0.0
            _arrow(ax, (from_x + 0.36, from_y), (x - 0.36, y), bend)
    return fig


def _topological(tensor: Any) -> list[Any]:
    """All nodes of the graph, parents before children; no recursion, so depth is no limit."""
    order: list[Any] = []
    seen: set[int] = set()
    stack = [(tensor, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(tuple(node.parents)))
    return order


def _layers(nodes: Sequence[Any]) -> list[list[Any]]:
    """Columns for the nodes, each ordered so that few arrows cross.

    An operation stands one column right of its last parent, an input one column left of its
    first use. Within a column nodes follow the mean height of their neighbours, swept to and
    fro a few times (the barycentre method of Sugiyama, Tagawa and Toda, 1981).
    """
    children: dict[int, list[Any]] = {id(node): [] for node in nodes}
    depth: dict[int, int] = {}
    for node in nodes:
        depth[id(node)] = max((depth[id(p)] + 1 for p in node.parents), default=0)
        for parent in node.parents:
            children[id(parent)].append(node)
    for node in nodes:
        if not node.parents and children[id(node)]:
            depth[id(node)] = min(depth[id(child)] for child in children[id(node)]) - 1
    layers: list[list[Any]] = [[] for _ in range(max(depth.values()) + 1)]
    for node in nodes:
        layers[depth[id(node)]].append(node)

    def height() -> dict[int, float]:
        return {
            id(node): row - (len(layer) - 1) / 2
            for layer in layers
            for row, node in enumerate(layer)
        }

    for sweep in range(8):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            at = height()

            def wish(node: Any, at: dict[int, float] = at, back: bool = sweep % 2 == 1) -> float:
                near = children[id(node)] if back else node.parents
                beside = [at[id(other)] for other in near]
                return float(np.mean(beside)) if beside else at[id(node)]

            layer.sort(key=wish)
    return layers


def _node_text(node: Any, name: str | None, gradients: bool) -> str:
    operation = str(getattr(node, "op", "") or "").strip("_").removesuffix("backward")
    sign = _SIGNS.get(operation.lower(), operation) if node.parents else ""
    head = " = ".join(part for part in (name, sign) if part) or "input"
    lines = [head, _value_text(node.data)]
    grad = getattr(node, "grad", None)
    if gradients and grad is not None:
        lines.append("grad " + _value_text(getattr(grad, "data", grad)))
    return "\n".join(lines)


def _value_text(value: Any) -> str:
    array = np.asarray(value)
    if array.size == 1:
        return f"{array.item():.3g}".replace("-", "−")
    if array.ndim == 1 and array.size <= 3:
        return "[" + ", ".join(f"{entry:.2g}" for entry in array).replace("-", "−") + "]"
    return "×".join(str(size) for size in array.shape)


def draw_network(
    layer_sizes: Sequence[int],
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
    most: int = 6,
) -> Figure:
    """Draw a fully connected network: a column of circles per layer, a line per weight.

    Args:
        layer_sizes: number of units per layer, inputs first; at least two layers.
        labels: one line under each layer, such as "input" or "ReLU"; default input, hidden,
            output. Below it stands the layer's number of units.
        title: what to see.
        most: a layer with more units than this is drawn with some left out ("⋮").

    Returns:
        The figure; its axes are off.

    Raises:
        TypeError: if a size is not an integer.
        ValueError: if there are fewer than two layers, a size is below 1, or the numbers of
            labels and layers differ.
    """
    sizes = [
        _validate.integer(f"layer_sizes[{i}]", size, low=1) for i, size in enumerate(layer_sizes)
    ]
    if len(sizes) < 2:
        raise ValueError(f"layer_sizes must hold at least two layers, got {sizes}")
    _validate.integer("most", most, low=3)
    if labels is None:
        labels = ["input", *["hidden"] * (len(sizes) - 2), "output"]
    if len(labels) != len(sizes):
        raise ValueError(f"labels must be one per layer ({len(sizes)}), got {len(labels)}")
    columns = [_unit_rows(size, most) for size in sizes]
    tallest = max(max(abs(row) for row in rows) for rows, _ in columns)
    unit = 0.36
    fig, ax = _canvas((5.6, unit * (2 * tallest + 1) + 0.75 + (0.3 if title else 0)), title)
    spread = 5.6 / unit / len(sizes)
    for column in range(len(sizes) - 1):
        for start in columns[column][0]:
            for end in columns[column + 1][0]:
                xs = (column * spread, (column + 1) * spread)
                ax.plot(xs, (start, end), "-", color=FAINT, linewidth=0.6, zorder=1)
    last = len(sizes) - 1
    for column, (rows, dots) in enumerate(columns):
        x = column * spread
        fill = _LEAF if column == 0 else (_RESULT if column == last else _OPERATION)
        for row in rows:
            ax.add_patch(Circle((x, row), 0.36, facecolor=fill, edgecolor=INK, zorder=2))
        if dots:
            ax.text(x, 0, "⋮", ha="center", va="center", fontsize=15, zorder=3)
        units = f"{labels[column]}\n{sizes[column]}"
        ax.text(x, -tallest - 0.7, units, ha="center", va="top", fontsize=11)
    ax.set_xlim(-spread / 2, (last + 0.5) * spread)
    ax.set_ylim(-tallest - 2.2, tallest + 0.5)
    ax.set_aspect("equal")
    return fig


def _unit_rows(size: int, most: int) -> tuple[list[float], bool]:
    """Heights of a layer's circles, and whether some in the middle are left out."""
    if size <= most:
        return [(size - 1) / 2 - row for row in range(size)], False
    drawn = most - 1 + (most - 1) % 2  # an even number, half above the dots and half below
    half = drawn // 2
    rows = [half - row for row in range(half)]
    return [*rows, *(-row for row in reversed(rows))], True


def flow(
    boxes: Sequence[str],
    *,
    columns: int = 3,
    back: Sequence[tuple[int, int, str]] = (),
    title: str = "",
) -> Figure:
    """Draw boxes in the order in which data flow through them, with arrows between.

    Rows are read like a snake: left to right, then right to left, so that each arrow is short.

    Args:
        boxes: the text of each box; a line break divides a name from its detail.
        columns: boxes in a row, at most; three can be read on a phone.
        back: arrows that lead elsewhere, each (from box, to box, label), such as the loop of
            a training run; drawn dashed.
        title: what to see.

    Returns:
        The figure; its axes are off.

    Raises:
        ValueError: if there are fewer than two boxes, one is empty, or `back` names a box that
            is not there.
    """
    if len(boxes) < 2 or not all(isinstance(box, str) and box.strip() for box in boxes):
        raise ValueError(f"boxes must be at least two texts, none empty, got {list(boxes)!r}")
    columns = min(_validate.integer("columns", columns, low=1), len(boxes))
    for start, end, _ in back:
        if not (0 <= start < len(boxes) and 0 <= end < len(boxes)) or start == end:
            raise ValueError(f"back: no arrow from box {start} to box {end} of {len(boxes)}")
    rows = -(-len(boxes) // columns)
    lines = max(box.count("\n") + 1 for box in boxes)
    step = 0.55 + 0.22 * lines
    below = 0.45 if back else 0.0
    fig, ax = _canvas((5.6, rows * step + below + (0.3 if title else 0)), title)
    half = 0.5 * (0.12 + 0.24 * lines) / step
    place = []
    for number in range(len(boxes)):
        row, column = divmod(number, columns)
        place.append((column if row % 2 == 0 else columns - 1 - column, -float(row)))
    for (x, y), text in zip(place, boxes, strict=True):
        _box(ax, x, y, 0.38, half, text, _OPERATION)
    for (x0, y0), (x1, y1) in zip(place, place[1:], strict=False):
        if y0 == y1:
            side = 0.38 if x1 > x0 else -0.38
            _arrow(ax, (x0 + side, y0), (x1 - side, y1), 0.0)
        else:
            _arrow(ax, (x0, y0 - half), (x1, y1 + half), 0.0)
    floor = -(rows - 1) - half
    for start, end, label in back:
        floor = min(floor, _loop(ax, place[start], place[end], label, half, step))
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(min(floor, -(rows - 1) - 0.5), 0.5)
    return fig


def _loop(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    label: str,
    half: float,
    step: float,
) -> float:
    """A dashed arrow below two boxes with its label; returns how far down it reaches."""
    depth = 0.22 / step
    bottom = min(start[1], end[1]) - half - depth
    xs = [start[0], start[0], end[0], end[0]]
    ys = [start[1] - half, bottom, bottom, end[1] - half]
    colour = PALETTE["blue"]
    ax.plot(xs[:3], ys[:3], linestyle="--", color=colour, linewidth=1.4)
    ax.add_patch(
        FancyArrowPatch(
            (xs[2], ys[2]),
            (xs[3], ys[3]),
            arrowstyle="-|>",
            mutation_scale=13,
            shrinkA=0,
            shrinkB=0,
            color=colour,
        )
    )
    middle = (start[0] + end[0]) / 2
    ax.text(middle, bottom - 0.05 / step, label, ha="center", va="top", color=colour, fontsize=11)
    return bottom - 0.27 / step


def _canvas(size: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    fig, ax = subplots(figsize=size)
    ax.set_axis_off()
    if title:
        ax.set_title(title)
    return fig, ax


def _box(
    ax: Axes, x: float, y: float, half_width: float, half_height: float, text: str, fill: str
) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x - half_width, y - half_height),
            2 * half_width,
            2 * half_height,
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor=fill,
            edgecolor=INK,
            linewidth=1.0,
            zorder=2,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=11, linespacing=1.25, zorder=3)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], bend: float) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            shrinkA=0,
            shrinkB=1,
            connectionstyle=f"arc3,rad={bend}",
            color=INK,
            linewidth=1.2,
            zorder=1,
        )
    )
