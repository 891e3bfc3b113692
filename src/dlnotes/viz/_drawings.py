"""Drawings made by code: computational graphs, networks, flows of boxes and arrows."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from dlnotes import _validate
from dlnotes.autograd import Tensor
from dlnotes.viz._style import FAINT, INK, PALETTE, subplots

_MOST_NODES = 40
Point = tuple[float, float]  # inches from the lower left corner

_LEAF = "#dcebf5"
_OPERATION = "#fdf0d5"
_RESULT = "#d9f0e6"
_SIGNS = {
    "add": "+",
    "sub": "−",
    "mul": "×",
    "div": "÷",
    "matmul": "@",
    "pow": "power",
    "neg": "−",
}


def draw_graph(
    tensor: Tensor,
    *,
    names: Mapping[str, Tensor] | None = None,
    title: str = "",
    gradients: bool = True,
) -> Figure:
    """Draw the computational graph of a `dlnotes.autograd.Tensor`.

    Inputs stand at the left, the result at the right (in a long graph: from top to bottom), and
    every arrow runs with the forward computation. Each box shows the operation, its value (its
    shape, if it has more than two) and, once `backward` has run, its gradient.

    Args:
        tensor: the result whose graph is drawn.
        names: names for some of its nodes, such as `{"a": a, "J": J}`.
        title: what to see.
        gradients: show the gradients that are there.

    Returns:
        The figure; its axes are off.

    Raises:
        TypeError: if `tensor` is no Tensor.
        ValueError: if it was not computed from others, the graph has more than 40 nodes, or a
            name's tensor is not in it.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a dlnotes Tensor, got {type(tensor).__name__}")
    if not tensor.parents:
        raise ValueError(
            "tensor has no graph: it was not computed from a tensor with requires_grad=True"
        )
    nodes = _ancestors(tensor)
    if len(nodes) > _MOST_NODES:
        raise ValueError(f"a drawing holds at most {_MOST_NODES} nodes, the graph has {len(nodes)}")
    titles = {id(node): name for name, node in (names or {}).items()}
    for name, node in (names or {}).items():
        if not any(node is other for other in nodes):
            raise ValueError(f"names: {name!r} is not a node of this graph")

    text = {id(node): _node_text(node, titles.get(id(node)), gradients) for node in nodes}
    layers, routes = _layers(nodes)
    down = len(layers) > 4  # a long graph runs down the page, since a phone is narrow
    box = _box_size(text.values())
    step = (box[0] + 0.25, box[1] + 0.4) if down else (box[0] + 0.45, box[1] + 0.2)
    place = _positions(layers, step, down)
    width, height = (max(at[k] for at in place.values()) + step[k] / 2 for k in (0, 1))
    fig, ax = _canvas(width, height, title)
    for spot in place:
        if spot.node is not None:
            fill = _OPERATION if spot.node.parents else _LEAF
            fill = _RESULT if spot.node is tensor else fill
            _box(ax, place[spot], box, text[id(spot.node)], fill)
            arriving = [route for route in routes if route[-1] is spot]
            _arrows(ax, arriving, place, box, down)
    return fig


@dataclass(eq=False)
class _Spot:
    """A place in a layer: a node's, or (node None) one where an arrow passes by the nodes."""

    node: Tensor | None
    before: list["_Spot"] = field(default_factory=list)
    after: list["_Spot"] = field(default_factory=list)


def _ancestors(tensor: Tensor) -> list[Tensor]:
    """All nodes of the graph, parents first: the constants too, which the tape passes over."""
    order: list[Tensor] = []
    seen: set[int] = set()
    stack = [(tensor, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.parents))
    return order


def _layers(nodes: Sequence[Tensor]) -> tuple[list[list[_Spot]], list[list[_Spot]]]:
    """The graph's layers, ordered so that few arrows cross, and the arrows' routes over them.

    An operation stands one layer after its last parent, an input one layer before its first
    use; an arrow across several layers gets a spot of its own in each. Within a layer spots
    follow the mean position of their neighbours, swept to and fro (the barycentre method of
    Sugiyama, Tagawa and Toda, 1981).
    """
    depth: dict[int, int] = {}
    for node in nodes:
        depth[id(node)] = max((depth[id(parent)] + 1 for parent in node.parents), default=0)
    for node in nodes:
        if not node.parents:
            uses = [depth[id(other)] for other in nodes if any(node is p for p in other.parents)]
            depth[id(node)] = min(uses) - 1
    layers: list[list[_Spot]] = [[] for _ in range(max(depth.values()) + 1)]
    spots = {id(node): _Spot(node) for node in nodes}
    for node in nodes:
        layers[depth[id(node)]].append(spots[id(node)])
    routes = []
    for node in nodes:
        for parent in node.parents:
            passed = [_Spot(None) for _ in range(depth[id(parent)] + 1, depth[id(node)])]
            for number, spot in enumerate(passed, start=depth[id(parent)] + 1):
                layers[number].append(spot)
            route = [spots[id(parent)], *passed, spots[id(node)]]
            for spot, following in itertools.pairwise(route):
                spot.after.append(following)
                following.before.append(spot)
            routes.append(route)
    for sweep in range(8):
        forward = sweep % 2 == 0
        for layer in layers if forward else reversed(layers):
            at = {
                spot: position - (len(other) - 1) / 2
                for other in layers
                for position, spot in enumerate(other)
            }
            wish = {
                spot: np.mean([at[n] for n in (spot.before if forward else spot.after)] or at[spot])
                for spot in layer
            }
            layer.sort(key=wish.__getitem__)
    return layers, routes


def _arrows(
    ax: Axes,
    routes: Sequence[Sequence[_Spot]],
    place: Mapping[_Spot, Point],
    box: tuple[float, float],
    down: bool,
) -> None:
    """The arrows into one node, arriving beside each other: a + a is seen to enter twice."""
    along, across = (1, 0) if down else (0, 1)
    half = -box[1] / 2 if down else box[0] / 2  # from a box's centre to where arrows leave it
    gap = min(0.2, 0.6 * box[across] / max(len(routes), 1))
    routes = sorted(routes, key=lambda route: place[route[-2]][across])
    for number, route in enumerate(routes):
        corners = []
        for spot in route:
            for side in (-half, half):
                corner = list(place[spot])
                corner[along] += side
                corners.append(corner)
        corners = corners[1:-1]  # from the first box's far side to the last one's near side
        corners[-1][across] += (number - (len(routes) - 1) / 2) * gap
        if len(corners) > 2:
            ax.plot(*zip(*corners[:-1], strict=True), "-", color=INK, lw=1.2, zorder=1)
        _arrow(ax, tuple(corners[-2]), tuple(corners[-1]))


def _box_size(texts: Iterable[str]) -> tuple[float, float]:
    """Inches that the largest of the texts needs, at 11 points."""
    lines = [text.split("\n") for text in texts]
    longest = max(len(line) for entry in lines for line in entry)
    tallest = max(len(entry) for entry in lines)
    return max(0.8, 0.2 + 0.1 * longest), 0.14 + 0.2 * tallest


def _positions(
    layers: Sequence[Sequence[_Spot]], step: tuple[float, float], down: bool
) -> dict[_Spot, Point]:
    """The centre of each spot, in inches; every layer is centred."""
    widest = max(len(layer) for layer in layers)
    place = {}
    for number, layer in enumerate(layers):
        for position, spot in enumerate(layer):
            aside = position + (widest - len(layer)) / 2
            if down:
                column, row = aside, len(layers) - 1 - number
            else:
                column, row = number, widest - 1 - aside
            place[spot] = ((column + 0.5) * step[0], (row + 0.5) * step[1])
    return place


def _node_text(node: Tensor, name: str | None, gradients: bool) -> str:
    sign = _SIGNS.get(node.op, node.op)
    head = ":  ".join(part for part in (name, sign) if part)
    if not head and node.data.size > 1:
        head = "constant" if not node.requires_grad else "input"
    lines = [head] * bool(head) + [_value_text(node.data)]
    if gradients and node.grad is not None:
        lines.append("grad " + _value_text(node.grad))
    return "\n".join(lines)


def _value_text(array: np.ndarray) -> str:
    """A number; two numbers; otherwise the shape, since a box must stay narrow."""
    if array.size == 1:
        return f"{array.item():.3g}".replace("-", "−")
    if array.shape == (2,):
        return "[" + ", ".join(f"{entry:.2g}" for entry in array).replace("-", "−") + "]"
    return str(array.shape)


def draw_network(
    layer_sizes: Sequence,  # of int; each is checked below
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
    tallest = max(len(rows) + dots for rows, dots in columns)
    unit, below, width = 0.36, 0.55, 5.6
    fig, ax = _canvas(width, unit * tallest + below + 0.1, title)
    middle = below + unit * tallest / 2
    xs = [(column + 0.5) * width / len(sizes) for column in range(len(sizes))]
    heights = [[middle + unit * row for row in rows] for rows, _ in columns]
    for column in range(len(sizes) - 1):
        for start, end in itertools.product(heights[column], heights[column + 1]):
            ax.plot(xs[column : column + 2], (start, end), "-", color=FAINT, lw=0.6, zorder=1)
    for column, x in enumerate(xs):
        fill = _LEAF if column == 0 else _RESULT if column == len(xs) - 1 else _OPERATION
        for y in heights[column]:
            ax.add_patch(Circle((x, y), 0.13, facecolor=fill, edgecolor=INK, zorder=2))
        if columns[column][1]:
            ax.text(x, middle, "⋮", ha="center", va="center", fontsize=15, zorder=3)
        units = f"{labels[column]}\n{sizes[column]}"
        ax.text(x, below - 0.06, units, ha="center", va="top", fontsize=11)
    return fig


def _unit_rows(size: int, most: int) -> tuple[list[float], bool]:
    """Heights of a layer's circles, and whether some in the middle are left out."""
    if size <= most:
        return [(size - 1) / 2 - row for row in range(size)], False
    drawn = most - 1 + (most - 1) % 2  # an even number, half above the dots and half below
    half = drawn // 2
    rows = [float(half - row) for row in range(half)]
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
    width, below = 5.6, 0.42 * bool(back)
    box = (width / columns - 0.4, _box_size(boxes)[1] + 0.06)
    row_height = box[1] + 0.36
    fig, ax = _canvas(width, rows * row_height + below, title)
    place: list[Point] = []
    for number in range(len(boxes)):
        row, column = divmod(number, columns)
        column = column if row % 2 == 0 else columns - 1 - column
        y = below + (rows - row - 0.5) * row_height
        place.append(((column + 0.5) * width / columns, y))
    for centre, text in zip(place, boxes, strict=True):
        _box(ax, centre, box, text, _OPERATION)
    for (x0, y0), (x1, y1) in itertools.pairwise(place):
        if y0 == y1:
            side = box[0] / 2 if x1 > x0 else -box[0] / 2
            _arrow(ax, (x0 + side, y0), (x1 - side, y1))
        else:
            _arrow(ax, (x0, y0 - box[1] / 2), (x1, y1 + box[1] / 2))
    for start, end, label in back:
        _back_arrow(ax, place[start], place[end], box[1] / 2, below - 0.12, label)
    return fig


def _back_arrow(ax: Axes, start: Point, end: Point, half: float, floor: float, label: str) -> None:
    """A dashed arrow that leaves a box downwards and enters another from below."""
    blue = PALETTE["blue"]
    # Left of the middle, where it does not meet the arrow that leads down to the next row.
    xs, bottom = (start[0] - 0.15, end[0] - 0.15), floor + 0.05
    ax.plot((xs[0], xs[0], xs[1]), (start[1] - half, bottom, bottom), "--", color=blue, lw=1.4)
    _arrow(ax, (xs[1], bottom), (xs[1], end[1] - half), colour=blue)
    ax.text(sum(xs) / 2, bottom - 0.04, label, ha="center", va="top", color=blue, fontsize=11)


def _canvas(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure whose coordinates are inches from the lower left corner; the title above it."""
    above = 0.32 if title else 0.0
    fig, ax = subplots(figsize=(width, height + above), layout="none")
    ax.set_position((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set_xlim(0, width)
    ax.set_ylim(0, height + above)
    if title:
        ax.text(0.08, height + above - 0.08, title, va="top", fontsize=11)
    return fig, ax


def _box(ax: Axes, centre: Point, size: tuple[float, float], text: str, fill: str) -> None:
    width, height = size
    ax.add_patch(
        FancyBboxPatch(
            (centre[0] - width / 2, centre[1] - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=fill,
            edgecolor=INK,
            linewidth=1.0,
            zorder=2,
        )
    )
    ax.text(*centre, text, ha="center", va="center", fontsize=11, linespacing=1.25, zorder=3)


def _arrow(ax: Axes, start: Point, end: Point, *, bend: float = 0.0, colour: str = INK) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            shrinkA=0,
            shrinkB=1,
            connectionstyle=f"arc3,rad={bend}",
            color=colour,
            linewidth=1.2,
            zorder=1,
        )
    )
