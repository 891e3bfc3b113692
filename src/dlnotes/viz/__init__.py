"""Figures: one style, pictures with alternative texts, drawings, interactive demonstrations."""

from dlnotes.viz._demo import check_corners, choice, demo, slider, toggle
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
    "demo",
    "predict",
    "show",
    "slider",
    "subplots",
    "toggle",
    "use_style",
]
