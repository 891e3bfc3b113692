"""Tables of trained vectors: Embedding and EmbeddingBag.

Forward: TypeError for what are no integers, ValueError for those out of range; negative ones do not
count from the end.
"""

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn import init
from dlnotes.nn.module import Module, Parameter


class _Table(Module):
    """A table of vectors, drawn from a standard normal; the row of `padding_idx` is 0."""

    def __init__(self, num_embeddings, embedding_dim, padding_idx, dtype):
        super().__init__()
        self.num_embeddings = _validate.integer("num_embeddings", num_embeddings, low=1)
        self.embedding_dim = _validate.integer("embedding_dim", embedding_dim, low=1)
        if padding_idx is not None:
            padding_idx = _validate.dimension("padding_idx", padding_idx, self.num_embeddings)
        self.padding_idx = padding_idx
        self.weight = Parameter(np.empty((self.num_embeddings, self.embedding_dim), dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings, freeze: bool = True, **settings):
        """Return a layer with this table (rows, d), a copy; freeze=True keeps it as it is."""
        embeddings = np.array(_validate.without_tensor(embeddings))
        _validate.floats("embeddings", embeddings, ndim=2)
        layer = cls(*embeddings.shape, **settings, dtype=embeddings.dtype)
        layer.weight = Parameter(embeddings, requires_grad=not freeze)
        return layer


class Embedding(_Table):
    """Rows of a table by their numbers: integers (…) → (…, embedding_dim).

    weight: (num_embeddings, embedding_dim), drawn from a standard normal by
    `dlnotes.random.generator()`. The row `padding_idx` starts at 0 and gets no gradient. With
    max_norm, rows that are looked up and whose `norm_type`-norm is larger are cut down to it, in
    place. Arguments as in torch, without sparse gradients. from_pretrained(table) makes one of a
    table of floats. (Bengio et al., 2003.) scale_grad_by_freq=True divides a row's gradient by how
    often it was looked up.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: Number | None = None,
        norm_type: Number = 2.0,
        scale_grad_by_freq: bool = False,
        *,
        dtype=np.float32,
    ):
        super().__init__(num_embeddings, embedding_dim, padding_idx, dtype)
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq = scale_grad_by_freq

    def forward(self, input) -> Tensor:
        """Return the rows that `input` names."""
        settings = (self.max_norm, self.norm_type, self.scale_grad_by_freq)
        return F.embedding(input, self.weight, self.padding_idx, *settings)

    def extra_repr(self) -> str:
        """Return the sizes."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        norm = "" if self.max_norm is None else f", max_norm={self.max_norm}"
        scaled = ", scale_grad_by_freq=True" if self.scale_grad_by_freq else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{norm}{scaled}"


class EmbeddingBag(_Table):
    """Sum, mean or largest entries of the rows in each bag of numbers.

    input: (bags, length), or (n,) with offsets (bags,) → (bags, embedding_dim). The table is as in
    Embedding, and so is max_norm; arguments as in torch, without scale_grad_by_freq and sparse
    gradients.
    mode: "sum", "mean" or "max"; include_last_offset: offsets also say where the last bag ends;
    places that hold padding_idx are left out. An empty bag gives 0. per_sample_weights, of input's
    shape, for "sum" alone.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: Number | None = None,
        norm_type: Number = 2.0,
        *,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        dtype=np.float32,
    ):
        super().__init__(num_embeddings, embedding_dim, padding_idx, dtype)
        self.max_norm, self.norm_type = max_norm, norm_type
        self.mode = _validate.one_of("mode", mode, ["sum", "mean", "max"])
        self.include_last_offset = include_last_offset

    def forward(self, input, offsets=None, per_sample_weights=None) -> Tensor:
        """Return one vector for each bag."""
        return F.embedding_bag(
            *(input, self.weight, offsets),
            max_norm=self.max_norm,
            norm_type=self.norm_type,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )

    def extra_repr(self) -> str:
        """Return the sizes and the mode."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        norm = "" if self.max_norm is None else f", max_norm={self.max_norm}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{norm}, mode={self.mode!r}"
