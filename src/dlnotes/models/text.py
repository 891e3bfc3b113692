"""Convolution over sentences: TextCNN (Kim, 2014)."""

from types import ModuleType

import numpy as np

from dlnotes import nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class TextCNN(Network):
    """Kim's sentence classifier: word numbers (n, length) → (n, num_classes).

    Filters over 3, 4 and 5 words, the largest response of each over the sentence, dropout, one
    linear layer; the defaults are the paper's. Sentences shorter than the widest filter must be
    padded. `vectors` (vocabulary, d) starts the table from trained word vectors ("non-static");
    with freeze=True they stay as they are ("static"); without vectors it is drawn and trained
    ("rand"). Parameters besides the table: 360,300 in the filters and 301 for each class. The
    paper's limit on the norm of the last layer's weights is left to the training loop.
    dropout: before the linear layer. ValueError for vectors of another shape and for sentences that
    are too short.
    """

    def __init__(
        self,
        vocabulary: int,
        num_classes: int = 2,
        embedding_dim: int = 300,
        filters: int = 100,
        sizes: tuple[int, ...] | list[int] = (3, 4, 5),
        dropout: Number = 0.5,
        padding_idx: int | None = None,
        vectors: np.ndarray | None = None,
        freeze: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        if vectors is None:
            self.embedding = nn.Embedding(vocabulary, embedding_dim, padding_idx)
        else:
            if vectors.shape != (vocabulary, embedding_dim):
                raise ValueError(
                    f"vectors must have shape {(vocabulary, embedding_dim)}, got {vectors.shape}"
                )
            table = _engine.leaf(vectors, nn)
            settings = {"freeze": freeze, "padding_idx": padding_idx}
            self.embedding = nn.Embedding.from_pretrained(table, **settings)
        self.convs = nn.ModuleList(nn.Conv1d(embedding_dim, filters, size) for size in sizes)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(filters * len(sizes), num_classes)

    def forward(self, tokens):
        """Return the logits."""
        F = self.nn.functional
        x = self.embedding(tokens).transpose(1, 2)  # (n, d, length)
        maps = [self.relu(conv(x)) for conv in self.convs]
        largest = [F.max_pool1d(y, y.shape[2]).flatten(1) for y in maps]
        return self.fc(self.dropout(_engine.cat(largest, 1)))
