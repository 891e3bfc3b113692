"""The book's one look: colours, fonts and figure sizes."""

from numbers import Real as Number
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Found by a search near the hues of Okabe and Ito (2008), "Color universal design", for two
# things: each has a contrast of 3:1 or more on white, so that a thin line is seen; and any two
# differ by 35 or more (CIE 1976) for normal sight and for red-, green- and blue-blind sight
# (Machado, Oliveira and Fernandes, 2009). Dark and light alternate, for a grey print.
PALETTE = {
    "blue": "#2F43C4",
    "orange": "#CA8601",
    "red": "#912100",
    "green": "#00A47B",
    "violet": "#AD81CB",
    "black": "#222222",
}
COLOURS = tuple(PALETTE.values())
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
INK = "#222222"
FAINT = "#8a8a8a"

DPI = 120  # pixels stored per inch; shown at 100, so that a sharp screen has some to spare
DISPLAY_DPI = 100

# A phone shows a figure 360 pixels wide. Text of 11 points in a figure 5.6 inches wide is then
# about 10 pixels high, which can still be read; a wider figure would need larger text.
_WIDTHS = {1: 5.6, 2: 6.4, 3: 7.2}
_FONT_SIZE = 11

_STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "figure.dpi": DISPLAY_DPI,
    "figure.figsize": (_WIDTHS[1], 3.6),
    "figure.constrained_layout.use": True,
    "figure.titlesize": _FONT_SIZE,
    "savefig.dpi": DPI,
    "savefig.facecolor": "white",
    "svg.hashsalt": "dlnotes",
    "font.family": ["DejaVu Sans"],  # travels with matplotlib: the same on every machine
    "font.size": _FONT_SIZE,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": _FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.labelsize": _FONT_SIZE,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.labelsize": _FONT_SIZE - 1,
    "ytick.labelsize": _FONT_SIZE - 1,
    "legend.fontsize": _FONT_SIZE - 1,
    "legend.facecolor": "white",
    "legend.edgecolor": "white",
    "legend.framealpha": 0.85,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
    "errorbar.capsize": 3,
}


def use_style() -> None:
    """Give every figure drawn from now on the book's look.

    Colours are safe for the colour-blind and each comes with its own line style, so that curves
    can be told apart in a grey print; text stays legible on a phone (360 pixels).
    """
    plt.rcParams.update(_STYLE)
    # The second round of colours meets other line styles, so that twelve lines all differ.
    styles = (*LINE_STYLES, *LINE_STYLES[1:], LINE_STYLES[0])
    cycle = plt.cycler(color=COLOURS * 2) + plt.cycler(linestyle=styles)
    plt.rcParams["axes.prop_cycle"] = cycle


def colour(index: int) -> str:
    """The palette's colour for the series with this number, beginning again after the last."""
    return COLOURS[index % len(COLOURS)]


def subplots(
    nrows: int = 1,
    ncols: int = 1,
    *,
    figsize: tuple[Number, Number] | None = None,
    height: Number | None = None,
    **options: Any,
) -> tuple[Figure, Any]:
    """`plt.subplots` with sizes that stay legible on a phone.

    Args:
        nrows: number of rows of axes.
        ncols: number of columns, at most 3; prefer rows, since a phone is narrow.
        figsize: width and height in inches; by default the width follows from `ncols`.
        height: height of one row in inches, where `figsize` is not given.
        **options: passed on to `plt.subplots` (`sharex`, `sharey`, `squeeze`, …).

    Returns:
        The figure and its axes, as `plt.subplots` does.

    Raises:
        ValueError: if `nrows` or `ncols` is below 1, or `ncols` above 3 without a `figsize`.
    """
    if nrows < 1 or ncols < 1:
        raise ValueError(f"nrows and ncols must be at least 1, got {nrows} and {ncols}")
    if figsize is None:
        if ncols not in _WIDTHS:
            raise ValueError(f"ncols must be at most 3 (a phone is narrow), got {ncols}")
        row = height if height is not None else (3.6 if ncols == 1 else 3.0)
        figsize = (_WIDTHS[ncols], row * nrows)
    return plt.subplots(nrows, ncols, figsize=figsize, **options)
