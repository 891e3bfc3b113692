"""Every CUDA kernel of the book, in ladders: the same task, each rung faster for one stated reason.

>>> from dlnotes.cuda import LADDERS
>>> ladder = LADDERS["softmax"]                                    # doctest: +SKIP
>>> [f"{rung.name}: {rung.reason}" for rung in ladder.rungs]       # doctest: +SKIP
>>> y = ladder.run(x, rung="softmax_warp", mode="checked")         # doctest: +SKIP

A rung says how its kernels are launched: `run(s, *inputs)` allocates what it returns and calls
`s.launch(kernel, grid, block, *arguments)`. The same function serves NumPy arrays on the CPU and
torch tensors on a GPU. Inputs are contiguous and of the rung's `dtype`: float32, or bfloat16 for
the rungs on tensor cores; each ladder computes what the NumPy function `reference` of
`dlnotes.kernels` does, in the subset that its rungs' arguments state.
"""

from dlnotes.cuda.ladders import (
    activations,
    attention,
    boxes,
    conv,
    conv_transpose,
    embedding,
    linear,
    losses,
    norm,
    optim,
    pool,
    recurrent,
    style,
    word2vec,
)
from dlnotes.cuda.ladders._base import Grid, Ladder, Rung, Session, blocks
from dlnotes.cuda.ladders.attention import Attention, attention_sizes
from dlnotes.cuda.ladders.conv import Conv, conv_sizes
from dlnotes.cuda.ladders.conv_transpose import conv_transpose_sizes
from dlnotes.cuda.ladders.losses import IGNORED
from dlnotes.cuda.ladders.pool import Pool, pool_sizes

__all__ = [
    "IGNORED",
    "LADDERS",
    "Attention",
    "Conv",
    "Grid",
    "Ladder",
    "Pool",
    "Rung",
    "Session",
    "attention_sizes",
    "blocks",
    "conv_sizes",
    "conv_transpose_sizes",
    "pool_sizes",
]

_FAMILIES = (
    linear,
    activations,
    losses,
    norm,
    pool,
    conv,
    conv_transpose,
    attention,
    recurrent,
    boxes,
    embedding,
    word2vec,
    style,
    optim,
)
LADDERS: dict[str, Ladder] = {
    ladder.name: ladder for family in _FAMILIES for ladder in family.FAMILY
}
