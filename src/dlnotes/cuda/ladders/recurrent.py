"""One step of an LSTM and of a GRU: rungs of recurrent.cu, between matrix products of linear.cu.

`gates` (b, 4 n_h), what a forward rung returns last, is what the gradient needs: i, f, g and o of
the LSTM; r, z and n of the GRU and the product with h that r multiplies. In the backward rungs of
the LSTM dc, the gradient of c', may be None.
"""

from dlnotes.cuda.ladders._base import Ladder, Rung, Session, blocks
from dlnotes.cuda.ladders.linear import FAMILY as LINEAR

_PRODUCT, _PRODUCT_BACKWARD = (ladder.rung("matmul_vectorised").run for ladder in LINEAR)
_TILE = 16


def _products(s: Session, x, h, weight_ih, weight_hh, bias_ih, bias_hh) -> tuple:
    linear = s.beside("linear.cu")
    return _PRODUCT(linear, x, weight_ih, bias_ih), _PRODUCT(linear, h, weight_hh, bias_hh)


def _gradients(s: Session, from_x, from_h, x, h, weight_ih, weight_hh) -> tuple:
    """Pass the gradients of the two products on."""
    linear = s.beside("linear.cu")
    dx, dweight_ih, dbias_ih = _PRODUCT_BACKWARD(linear, from_x, x, weight_ih)
    dh, dweight_hh, dbias_hh = _PRODUCT_BACKWARD(linear, from_h, h, weight_hh)
    return dx, dh, dweight_ih, dweight_hh, dbias_ih, dbias_hh


def _each(s: Session, kernel: str, like, *arrays, gates: int = 1) -> None:
    """Launch a thread for each of `gates` numbers of each row and unit of `like` (b, n_h)."""
    batch, units = like.shape
    s.launch(kernel, blocks(gates * batch * units, 128), 128, batch, units, *arrays)


def _fused(s: Session, kernel: str, x, h, *arrays) -> None:
    batch, units = h.shape
    grid = blocks(units, _TILE), blocks(batch, _TILE)
    s.launch(kernel, grid, (_TILE, _TILE), batch, x.shape[1], units, x, h, *arrays)


# ---- LSTM ------------------------------------------------------------------------------------


def _room(s: Session, h, states: int) -> tuple:
    batch, units = h.shape
    return *(s.empty(h.shape, h) for _ in range(states)), s.empty((batch, 4 * units), h)


def _lstm_naive(s, x, h, c, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    products = _products(s, x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    new_h, new_c, gates = _room(s, h, 2)
    _each(s, "lstm_gates_naive", h, *products, gates, gates=4)
    _each(s, "lstm_cell_naive", h, gates, c, new_c)
    _each(s, "lstm_state_naive", h, gates, new_c, new_h)
    return new_h, new_c, gates


def _lstm_pointwise(s, x, h, c, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    products = _products(s, x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    new_h, new_c, gates = _room(s, h, 2)
    _each(s, "lstm_pointwise", h, *products, c, gates, new_c, new_h)
    return new_h, new_c, gates


def _lstm_fused(s, x, h, c, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    new_h, new_c, gates = _room(s, h, 2)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    _fused(s, f"lstm_fused<{_TILE}>", x, h, c, *weights, gates, new_c, new_h)
    return new_h, new_c, gates


def _lstm_backward_naive(s, dy, dc, x, h, c, new_c, gates, weight_ih, weight_hh):
    dcell, carried, da = _room(s, h, 2)
    _each(s, "lstm_backward_cell_naive", h, dy, dc, gates, new_c, dcell)
    _each(s, "lstm_backward_gates_naive", h, dy, dcell, gates, c, new_c, da, gates=4)
    _each(s, "lstm_backward_carry_naive", h, dcell, gates, carried)
    dx, dh, *rest = _gradients(s, da, da, x, h, weight_ih, weight_hh)
    return dx, dh, carried, *rest


def _lstm_backward_pointwise(s, dy, dc, x, h, c, new_c, gates, weight_ih, weight_hh):
    carried, da = _room(s, h, 1)
    _each(s, "lstm_backward_pointwise", h, dy, dc, gates, c, new_c, da, carried)
    dx, dh, *rest = _gradients(s, da, da, x, h, weight_ih, weight_hh)
    return dx, dh, carried, *rest


# ---- GRU -------------------------------------------------------------------------------------


def _gru_naive(s, x, h, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    products = _products(s, x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    new_h, gates = _room(s, h, 1)
    _each(s, "gru_gates_naive", h, *products, gates)
    _each(s, "gru_candidate_naive", h, *products, gates)
    _each(s, "gru_state_naive", h, gates, h, new_h)
    return new_h, gates


def _gru_pointwise(s, x, h, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    products = _products(s, x, h, weight_ih, weight_hh, bias_ih, bias_hh)
    new_h, gates = _room(s, h, 1)
    _each(s, "gru_pointwise", h, *products, h, gates, new_h)
    return new_h, gates


def _gru_fused(s, x, h, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    new_h, gates = _room(s, h, 1)
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    _fused(s, f"gru_fused<{_TILE}>", x, h, *weights, gates, new_h)
    return new_h, gates


def _gru_sums(s: Session, h) -> tuple:
    batch, units = h.shape
    return s.empty((batch, 3 * units), h), s.empty((batch, 3 * units), h)


def _gru_gradients(s: Session, dy, sums, x, h, gates, weight_ih, weight_hh) -> tuple:
    dx, dh, *rest = _gradients(s, *sums, x, h, weight_ih, weight_hh)
    _each(s, "gru_backward_carry", h, dy, gates, dh)
    return dx, dh, *rest


def _gru_backward_naive(s, dy, x, h, gates, weight_ih, weight_hh):
    sums = _gru_sums(s, h)
    _each(s, "gru_backward_candidate_naive", h, dy, gates, *sums)
    _each(s, "gru_backward_reset_naive", h, gates, *sums)
    _each(s, "gru_backward_update_naive", h, dy, gates, h, *sums)
    return _gru_gradients(s, dy, sums, x, h, gates, weight_ih, weight_hh)


def _gru_backward_pointwise(s, dy, x, h, gates, weight_ih, weight_hh):
    sums = _gru_sums(s, h)
    _each(s, "gru_backward_pointwise", h, dy, gates, h, *sums)
    return _gru_gradients(s, dy, sums, x, h, gates, weight_ih, weight_hh)


_NAIVE = "After the matrix products, a kernel for each line of the formula."
_POINTWISE = "One kernel after the products: what a line gives the next stays in registers."
_FUSED = "The products too: their sums never reach memory, and a step is one launch."

FAMILY = (
    Ladder(
        "lstm_cell",
        "recurrent.cu",
        "lstm_cell",
        (
            Rung(
                "lstm_naive",
                _NAIVE,
                _lstm_naive,
                ("lstm_gates_naive", "lstm_cell_naive", "lstm_state_naive"),
            ),
            Rung("lstm_pointwise", _POINTWISE, _lstm_pointwise, ("lstm_pointwise",)),
            Rung("lstm_fused", _FUSED, _lstm_fused, (f"lstm_fused<{_TILE}>",)),
        ),
    ),
    Ladder(
        "lstm_cell_backward",
        "recurrent.cu",
        "lstm_cell_backward",
        (
            Rung(
                "lstm_backward_naive",
                "A kernel for each line of the formula, before the matrix products.",
                _lstm_backward_naive,
                (
                    "lstm_backward_cell_naive",
                    "lstm_backward_gates_naive",
                    "lstm_backward_carry_naive",
                ),
            ),
            Rung(
                "lstm_backward_pointwise",
                "One kernel before the products: gates and gradients are read once.",
                _lstm_backward_pointwise,
                ("lstm_backward_pointwise",),
            ),
        ),
    ),
    Ladder(
        "gru_cell",
        "recurrent.cu",
        "gru_cell",
        (
            Rung(
                "gru_naive",
                _NAIVE,
                _gru_naive,
                ("gru_gates_naive", "gru_candidate_naive", "gru_state_naive"),
            ),
            Rung("gru_pointwise", _POINTWISE, _gru_pointwise, ("gru_pointwise",)),
            Rung("gru_fused", _FUSED, _gru_fused, (f"gru_fused<{_TILE}>",)),
        ),
    ),
    Ladder(
        "gru_cell_backward",
        "recurrent.cu",
        "gru_cell_backward",
        (
            Rung(
                "gru_backward_naive",
                "A kernel for each line of the formula, before the matrix products.",
                _gru_backward_naive,
                (
                    "gru_backward_candidate_naive",
                    "gru_backward_reset_naive",
                    "gru_backward_update_naive",
                    "gru_backward_carry",
                ),
            ),
            Rung(
                "gru_backward_pointwise",
                "One kernel before the products: gates and gradients are read once.",
                _gru_backward_pointwise,
                ("gru_backward_pointwise", "gru_backward_carry"),
            ),
        ),
    ),
)
