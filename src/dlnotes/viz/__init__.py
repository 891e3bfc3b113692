"""Figures: one style, pictures with alternative texts, drawings, interactive demonstrations."""

from dlnotes.viz._demo import check_corners, choice, demo, slider, toggle
from dlnotes.viz._drawings import draw_graph, draw_network, flow
from dlnotes.viz._plots import contour_path, curves, decision_boundary, errorbars, image_grid
from dlnotes.viz._predict import predict
from dlnotes.viz._show import show
from dlnotes.viz._style import COLOURS, MARKERS, PALETTE, colour, subplots, use_style

__all__ = [
    "COLOURS",
    "MARKERS",
    "PALETTE",
    "check_corners",
    "choice",
    "colour",
    "contour_path",
    "curves",
    "decision_boundary",
    "demo",
    "draw_graph",
    "draw_network",
    "errorbars",
    "flow",
    "image_grid",
    "predict",
    "show",
    "slider",
    "subplots",
    "toggle",
    "use_style",
]
