"""Plots that come back in every chapter: curves, spreads, images, boundaries, contours."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real as Number
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Real
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dlnotes import _validate
from dlnotes.viz._style import COLOURS, INK, LINE_STYLES, MARKERS, colour, subplots

_NAMES = {"train_loss": "training loss", "val_loss": "validation loss"}


def curves(
    histories: Mapping[str, Any],
    keys: Sequence[str] = ("train_loss", "val_loss"),
    *,
    ylabel: str = "loss",
    title: str = "",
    log: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Draw training curves over the epochs.

    Args:
        histories: one history (a mapping from key to a list with one value per epoch, as
            `train.fit` returns it), or a mapping from a run's name to its history or to a list
            of histories (the same run with several seeds: their mean, with a band of one
            standard deviation on each side).
        keys: which entries to draw; a key that a history lacks is left out.
        ylabel: label of the vertical axis, with its unit.
        title: what to see.
        log: logarithmic vertical axis.
        ax: axes to draw into; default a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: if no history holds any of `keys`, or the seeds of a run differ in length.
    """
    runs = _runs(histories)
    present = [key for key in keys if any(key in h for run in runs.values() for h in run)]
    if not present:
        known = sorted({key for run in runs.values() for h in run for key in h})
        raise ValueError(f"keys must name entries of the histories ({known}), got {list(keys)}")
    fig, ax = _axes(ax)
    for number, (name, run) in enumerate(runs.items()):
        for style, key in enumerate(present):
            if not all(key in history for history in run):
                continue
            lengths = {len(history[key]) for history in run}
            if len(lengths) > 1:
                raise ValueError(f"the seeds of {name!r} must have equally many epochs: {lengths}")
            values = np.array([history[key] for history in run], dtype=float)
            epochs = np.arange(1, values.shape[1] + 1)
            # One run: one colour per key. Several runs: one colour per run, a line style per key.
            shade = colour(number if len(runs) > 1 else style)
            parts = [name] * bool(name) + [_NAMES.get(key, key)] * (len(present) > 1 or not name)
            ax.plot(
                epochs,
                values.mean(axis=0),
                color=shade,
                linestyle=LINE_STYLES[style % len(LINE_STYLES)],
                marker=MARKERS[style] if values.shape[1] == 1 else "",
                label=", ".join(parts),
            )
            if len(values) > 1:
                low = values.mean(axis=0) - values.std(axis=0, ddof=1)
                high = values.mean(axis=0) + values.std(axis=0, ddof=1)
                ax.fill_between(epochs, low, high, color=shade, alpha=0.2, linewidth=0)
    if log:
        ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel=ylabel, title=title)
    if len(ax.get_lines()) > 1:
        ax.legend()
    return fig


def _runs(histories: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Every accepted form as: run name → its histories, one per seed."""
    if not isinstance(histories, Mapping) or not histories:
        raise ValueError(f"histories must be a history or a mapping to histories: {histories!r}")
    if not any(isinstance(entry, Mapping) for entry in _first_of_each(histories)):
        return {"": [histories]}
    return {
        str(name): [run] if isinstance(run, Mapping) else list(run)
        for name, run in histories.items()
    }


def _first_of_each(histories: Mapping[str, Any]) -> list[Any]:
    return [
        value if isinstance(value, Mapping) else next(iter(value), None)
        for value in histories.values()
    ]


def errorbars(
    results: Mapping[str, Any],
    *,
    ylabel: str,
    x: Real[np.ndarray, " points"] | Sequence[Number] | None = None,
    xlabel: str = "",
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw the mean over seeds with a bar of one standard deviation on each side.

    Args:
        results: from a name to its values. Without `x`: one value per seed, shape (seeds,);
            each is shown as a faint dot beside its mean. With `x`: shape (points, seeds).
        ylabel: what was measured, with its unit.
        x: where the points stand on the horizontal axis.
        xlabel: label of the horizontal axis; needed with `x`.
        title: what to see.
        ax: axes to draw into; default a new figure.

    Returns:
        The figure.

    Raises:
        ValueError: if there are no results, a name has fewer than two seeds, shapes do not fit
            `x`, or `x` is given without `xlabel`.
    """
    if not results:
        raise ValueError("results must hold at least one name with its values")
    if x is not None and not xlabel:
        raise ValueError("xlabel must say what x is")
    points = None if x is None else np.asarray(x, dtype=float)
    tables = {name: _seeds(name, values, points) for name, values in results.items()}
    fig, ax = _axes(ax)
    for number, (name, table) in enumerate(tables.items()):
        mean, spread = table.mean(axis=-1), table.std(axis=-1, ddof=1)
        style = {"color": colour(number), "marker": MARKERS[number % len(MARKERS)], "capsize": 4}
        if points is None:
            beside = number + np.linspace(-0.12, 0.12, len(table)) + 0.25
            ax.plot(beside, table, ".", color=style["color"], alpha=0.5)
            ax.errorbar([number], [mean], [spread], linestyle="none", **style)
        else:
            line = LINE_STYLES[number % len(LINE_STYLES)]
            ax.errorbar(points, mean, spread, linestyle=line, label=name, **style)
    if points is None:
        ax.set_xticks(range(len(tables)), list(tables))
        ax.set_xlim(-0.6, len(tables) - 0.4)
        ax.grid(axis="x", visible=False)
        xlabel = xlabel or "mean ± standard deviation; dots: single seeds"
    elif len(tables) > 1:
        ax.legend()
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return fig


def _seeds(name: str, values: Any, points: np.ndarray | None) -> np.ndarray:
    table = np.asarray(values, dtype=float)
    wanted = "(seeds,)" if points is None else f"({len(points)}, seeds)"
    fits = table.ndim == 1 if points is None else table.ndim == 2 and len(table) == len(points)
    if not fits:
        raise ValueError(f"results[{name!r}] must have shape {wanted}, got {table.shape}")
    if table.shape[-1] < 2:
        raise ValueError(f"results[{name!r}] must hold at least two seeds, got {table.shape[-1]}")
    return table


def image_grid(
    images: Any,
    titles: Sequence[str] | None = None,
    *,
    columns: int = 5,
    title: str = "",
    cmap: str = "gray",
    vmin: Number | None = None,
    vmax: Number | None = None,
) -> Figure:
    """Draw images in rows.

    Args:
        images: a sequence of arrays (height, width) or (height, width, 3), or one array of
            them; uint8 in 0 … 255 or floats (colour: in 0 … 1).
        titles: one short line above each image.
        columns: images in a row, at most; five can be told apart on a phone.
        title: what to see.
        cmap: colour map of images without colour.
        vmin: value drawn as the map's lowest colour; default 0 for uint8, else each image's own.
        vmax: value drawn as the map's highest colour; default 255 for uint8, else its own.

    Returns:
        The figure; its axes are off.

    Raises:
        ValueError: if there is no image, one has another shape, or the numbers of titles and
            images differ.
    """
    images = [np.asarray(image) for image in images]
    if not images:
        raise ValueError("images must hold at least one image")
    for number, image in enumerate(images):
        if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(
                f"images[{number}] must have shape (height, width) or (height, width, 3), "
                f"got {image.shape}"
            )
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"titles must be one per image ({len(images)}), got {len(titles)}")
    columns = min(_validate.integer("columns", columns, low=1), len(images))
    rows = -(-len(images) // columns)
    height, width = images[0].shape[:2]
    cell = 5.6 / columns
    above = 0.28 if titles is not None else 0.04
    size = (5.6, rows * (cell * min(height / width, 3) + above) + (0.3 if title else 0))
    fig, grid = subplots(rows, columns, figsize=size, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for number, (ax, image) in enumerate(zip(grid.flat, images, strict=False)):
        low, high = (0, 255) if image.dtype == np.uint8 else (None, None)
        ax.imshow(
            image,
            cmap=cmap,
            vmin=low if vmin is None else vmin,
            vmax=high if vmax is None else vmax,
            interpolation="nearest",
        )
        if titles is not None:
            ax.set_title(titles[number], loc="center", pad=3, fontsize=10)
    if title:
        fig.suptitle(title, x=0.01, ha="left")
    return fig


def decision_boundary(
    ax: Axes,
    predict: Callable[[Float[np.ndarray, "m 2"]], Any],
    x: Real[np.ndarray, "n 2"],
    y: Integer[np.ndarray, " n"],
    *,
    names: Sequence[str] | None = None,
    level: Number = 0.5,
    resolution: int = 200,
    margin: Number = 0.15,
) -> Axes:
    """Shade the regions of a classifier of two features and draw the samples on them.

    Args:
        ax: axes to draw into.
        predict: from points (m, 2), of x's dtype if that is a float, to integer classes (m,), or
            to floats (m,), a score or probability of class 1, whose boundary lies at `level`.
        x: the samples.
        y: their classes 0, 1, … (or -1 and 1).
        names: one name per class, in the order of their numbers, for the legend.
        level: the score at the boundary; 0.5 for probabilities, 0 for margins.
        resolution: points of the grid along each axis.
        margin: how far the drawing reaches beyond the samples, as a share of their range.

    Returns:
        The axes. Label them with the features' names.

    Raises:
        ValueError: if `x` is empty, `y` has another length, there are too few names, or
            `predict` returns another shape or values that are not finite.
    """
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"x and y must hold equally many samples, got {len(x)} and {len(y)}")
    low, high = x.min(axis=0).astype(float), x.max(axis=0).astype(float)
    reach = margin * np.where(high > low, high - low, 1.0)
    across = np.linspace(low[0] - reach[0], high[0] + reach[0], resolution)
    up = np.linspace(low[1] - reach[1], high[1] + reach[1], resolution)
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    if np.issubdtype(x.dtype, np.floating):
        grid = grid.astype(x.dtype)
    values = np.asarray(predict(grid))
    if values.shape != (len(grid),):
        raise ValueError(f"predict must return shape ({len(grid)},), got {values.shape}")
    classes = np.unique(y)
    if names is not None and len(names) < len(classes):
        raise ValueError(f"names must be one per class ({len(classes)}), got {len(names)}")
    if np.issubdtype(values.dtype, np.floating):
        _validate.finite("predict's values", values)
        region = (values > level).astype(int)
        surfaces = [(values, level)]
    else:
        classes = np.union1d(classes, np.unique(values))
        region = np.searchsorted(classes, values)
        surfaces = [((region == k).astype(float), 0.5) for k in range(len(classes))]
    shape = (resolution, resolution)
    _shade(ax, across, up, region.reshape(shape))
    for surface, cut in surfaces:
        if surface.min() < cut < surface.max():
            line = surface.reshape(shape)
            ax.contour(across, up, line, levels=[cut], colors=INK, linewidths=1.5)
    for number, label in enumerate(classes):
        chosen = x[y == label]
        ax.plot(
            chosen[:, 0],
            chosen[:, 1],
            linestyle="none",
            marker=MARKERS[number % len(MARKERS)],
            color=colour(number),
            markeredgecolor="white",
            markeredgewidth=0.7,
            label=str(names[number] if names is not None else f"class {label}"),
        )
    ax.set_xlim(across[0], across[-1])
    ax.set_ylim(up[0], up[-1])
    ax.grid(visible=False)
    return ax


def _shade(ax: Axes, across: np.ndarray, up: np.ndarray, region: np.ndarray) -> None:
    """Fill each class's region with a pale shade of the class's colour."""
    pale = 0.75 + 0.25 * np.array([to_rgb(shade) for shade in COLOURS])
    ax.imshow(
        pale[region % len(COLOURS)],
        origin="lower",
        extent=(across[0], across[-1], up[0], up[-1]),
        aspect="auto",
        interpolation="nearest",
    )


def contour_path(
    ax: Axes,
    function: Callable[[np.ndarray, np.ndarray], Any],
    paths: Mapping[str, Any] | Any,
    *,
    xlim: tuple[Number, Number],
    ylim: tuple[Number, Number],
    minimum: tuple[Number, Number] | None = None,
    levels: int = 12,
    resolution: int = 120,
    log: bool = False,
) -> Axes:
    """Draw the contours of a function of two weights and the steps that a search took on it.

    Args:
        ax: axes to draw into.
        function: the height at (w0, w1); gets two arrays (resolution, resolution) and returns
            one.
        paths: one path, shape (steps + 1, 2), or a mapping from a name to a path.
        xlim: range of the first weight. A path that leaves it is cut off there.
        ylim: range of the second weight.
        minimum: where the lowest point is, drawn as a cross.
        levels: number of contours.
        resolution: points of the grid along each axis.
        log: contours at equal ratios instead of equal distances; needs a positive function.

    Returns:
        The axes. Label them with the weights' names.

    Raises:
        ValueError: if a path has another shape, `function` returns one, its values are not
            finite, or not positive where `log` needs it.
    """
    named = paths if isinstance(paths, Mapping) else {"": paths}
    tracks = {name: np.asarray(path, dtype=float) for name, path in named.items()}
    for name, track in tracks.items():
        if track.ndim != 2 or track.shape[1] != 2 or len(track) == 0:
            raise ValueError(f"path {name!r} must have shape (steps + 1, 2), got {track.shape}")
    across, up = np.meshgrid(np.linspace(*xlim, resolution), np.linspace(*ylim, resolution))
    heights = np.asarray(function(across, up), dtype=float)
    if heights.shape != across.shape:
        raise ValueError(f"function must return shape {across.shape}, got {heights.shape}")
    _validate.finite("function's values", heights)
    if log and heights.min() <= 0:
        raise ValueError(f"log contours need a positive function, lowest is {heights.min():.3g}")
    cuts = np.linspace(heights.min(), heights.max(), levels + 1)
    if log:
        cuts = np.geomspace(heights.min(), heights.max(), levels + 1)
    if heights.min() < heights.max():
        ax.contourf(across, up, heights, levels=cuts, cmap="Greys", alpha=0.35)
        ax.contour(across, up, heights, levels=cuts, colors="#777777", linewidths=0.6)
    for number, (name, track) in enumerate(tracks.items()):
        ax.plot(
            track[:, 0],
            track[:, 1],
            color=colour(number),
            linestyle="-",
            linewidth=1.6,
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5,
            label=name or None,
        )
        ax.plot(*track[0], marker="o", markersize=10, color=colour(number), fillstyle="none")
    if minimum is not None:
        ax.plot(*minimum, marker="x", markersize=10, markeredgewidth=2.5, color=INK)
    if any(tracks):
        ax.legend()
    ax.set_xlim(xlim)
    ax.set_ylim(ylim)
    ax.grid(visible=False)
    return ax


def _axes(ax: Axes | None) -> tuple[Figure, Axes]:
    return subplots() if ax is None else (ax.get_figure(), ax)
