"""Word vectors: output layers for large vocabularies, GloVe, and words from their characters.

A hidden vector, from `Embedding` (skip-gram) or `EmbeddingBag` (CBOW), goes into one of three
output layers that score the word that is asked for: `Linear` and `CrossEntropyLoss` (the full
softmax), `NegativeSampling`, or `HierarchicalSoftmax`.

reduction: "mean" or "sum" over the samples, or "none".
"""

from collections.abc import Callable, Sequence

import numpy as np

from dlnotes import _validate, kernels
from dlnotes._validate import Number
from dlnotes.autograd import Tensor, cat, stack
from dlnotes.nn import functional as F
from dlnotes.nn import init
from dlnotes.nn.conv import Conv1d
from dlnotes.nn.embedding import Embedding
from dlnotes.nn.layers import Linear, ModuleList
from dlnotes.nn.module import Module, Parameter

Int = int | np.integer


class NegativeSampling(Module):
    """The loss that tells a word from k words drawn as noise (Mikolov et al., 2013).

    weight: (num_embeddings, embedding_dim), the output vectors, 0 at first as in word2vec.c.
    remove_accidental_hits leaves out noise words that are the target. num_embeddings: words,
    embedding_dim: the length of the hidden vectors.
    """

    def __init__(
        self,
        num_embeddings: Int,
        embedding_dim: Int,
        *,
        remove_accidental_hits: bool = False,
        reduction: str = "mean",
        dtype=np.float32,
    ):
        super().__init__()
        self.num_embeddings = _validate.integer("num_embeddings", num_embeddings, low=1)
        self.embedding_dim = _validate.integer("embedding_dim", embedding_dim, low=1)
        self.remove_accidental_hits = remove_accidental_hits
        self.reduction = _validate.one_of("reduction", reduction, ["mean", "sum", "none"])
        self.weight = Parameter(np.zeros((self.num_embeddings, self.embedding_dim), dtype))

    def forward(self, hidden, target, noise) -> Tensor:
        """Return the loss of hidden (n, d), words (n,) and noise words (n, k)."""
        settings = {"remove_accidental_hits": self.remove_accidental_hits}
        arguments = (hidden, self.weight, target, noise, self.reduction)
        return F.negative_sampling_loss(*arguments, **settings)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class HierarchicalSoftmax(Module):
    """A softmax as a walk down Huffman's tree (Morin and Bengio, 2005; Mikolov et al., 2013).

    `counts` (words,), integers, say how often each word occurs. weight: (words - 1, embedding_dim),
    a vector for each fork, 0 at first; codes and points, the ways to the words as from
    `dlnotes.kernels.huffman_codes`, are buffers.
    """

    def __init__(
        self, embedding_dim: Int, counts: np.ndarray, *, reduction: str = "mean", dtype=np.float32
    ):
        super().__init__()
        self.embedding_dim = _validate.integer("embedding_dim", embedding_dim, low=1)
        self.reduction = _validate.one_of("reduction", reduction, ["mean", "sum", "none"])
        codes, points = kernels.huffman_codes(counts)
        self.register_buffer("codes", Tensor(codes))
        self.register_buffer("points", Tensor(points))
        self.weight = Parameter(np.zeros((len(codes) - 1, self.embedding_dim), dtype))

    def forward(self, hidden, target) -> Tensor:
        """Return the loss of hidden (n, d) and words (n,)."""
        tree = (self.codes, self.points)
        return F.hierarchical_softmax_loss(hidden, self.weight, target, *tree, self.reduction)

    def log_prob(self, hidden) -> Tensor:
        """Return log p of every word, (n, words), without history."""
        hidden = hidden.data if isinstance(hidden, Tensor) else hidden
        arguments = (self.weight.data, self.codes.data, self.points.data)
        return Tensor(kernels.hierarchical_softmax_log_probs(hidden, *arguments))

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.embedding_dim}, words={len(self.codes)}, depth={self.codes.shape[1]}"


class GloVe(Module):
    """Two vectors and two biases for each word, fitted to the logarithms of co-occurrence counts.

    The tables center, context (num_embeddings, embedding_dim), center_bias and context_bias
    (num_embeddings, 1) are drawn uniformly between ±1/(2 embedding_dim), as in the authors'
    program. x_max and alpha are those of the weight f (Pennington, Socher and Manning, 2014). The
    vectors of the words are `vectors()`. Counts that are not above 0 are refused.
    """

    def __init__(
        self,
        num_embeddings: Int,
        embedding_dim: Int,
        *,
        x_max: Number = 100.0,
        alpha: Number = 0.75,
        reduction: str = "mean",
        dtype=np.float32,
    ):
        super().__init__()
        self.x_max, self.alpha = _validate.number("x_max", x_max), _validate.number("alpha", alpha)
        self.reduction = _validate.one_of("reduction", reduction, ["mean", "sum", "none"])
        self.center = Embedding(num_embeddings, embedding_dim, dtype=dtype)
        self.context = Embedding(num_embeddings, embedding_dim, dtype=dtype)
        self.center_bias = Embedding(num_embeddings, 1, dtype=dtype)
        self.context_bias = Embedding(num_embeddings, 1, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the tables anew."""
        bound = 0.5 / self.center.embedding_dim
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, center, context, counts) -> Tensor:
        """Return the loss of pairs of words (n,), (n,) that occurred together `counts` (n,) times.

        As `dlnotes.data.cooccurrences` returns them.
        """
        settings = {"reduction": self.reduction, "x_max": self.x_max, "alpha": self.alpha}
        tables = (self.center(center), self.context(context))
        biases = (self.center_bias(center)[:, 0], self.context_bias(context)[:, 0])
        counts = np.asarray(counts, self.center.weight.dtype)
        return F.glove_loss(*tables, *biases, counts, **settings)

    def vectors(self) -> np.ndarray:
        """Return each word's vector: the mean of its two, since center and context may swap."""
        return (self.center.weight.data + self.context.weight.data) / 2


class Highway(Module):
    """Layers that let their input pass: y = t ⊙ activation(W x + b) + (1 - t) ⊙ x.

    The gate t = σ(W_t x + b_t) starts nearly closed, b_t = gate_bias below 0, so that a stack of
    layers begins near the identity (Srivastava, Greff and Schmidhuber, 2015). (…, size) to the
    same; transform and gate are lists of num_layers Linear.
    num_layers: at least 0; activation: a function of a tensor.
    """

    def __init__(
        self,
        size: Int,
        num_layers: Int = 1,
        *,
        activation: Callable = F.relu,
        gate_bias: Number = -2.0,
        dtype=np.float32,
    ):
        super().__init__()
        num_layers = _validate.integer("num_layers", num_layers, low=0)
        self.activation = activation
        self.transform = ModuleList(Linear(size, size, dtype=dtype) for _ in range(num_layers))
        self.gate = ModuleList(Linear(size, size, dtype=dtype) for _ in range(num_layers))
        for gate in self.gate:
            init.constant_(gate.bias, gate_bias)

    def forward(self, input) -> Tensor:
        """Return the output of the last layer."""
        for transform, gate in zip(self.transform, self.gate, strict=True):
            t = F.sigmoid(gate(input))
            input = t * self.activation(transform(input)) + (1 - t) * input
        return input


class CharacterCNN(Module):
    """A vector for a word from its characters (Kim et al., 2016; in ELMo: Peters et al., 2018).

    Characters are embedded; convolutions, `filters` being (width, number) of each, look for
    character sequences; of each filter the largest response in the word counts; highway layers
    and, with output_dim, a linear layer follow. input: numbers of characters (…, length), words
    filled up with padding_idx at the end → (…, output_dim or the number of filters).

    A window may stick out of the word's end, over zeros, but none starts there: how far a word is
    filled up changes nothing. A word of padding alone counts as one such character.

    num_embeddings characters of embedding_dim numbers each; num_highway layers; activation: a
    function of a tensor, after the largest responses. ValueError for no filters, and words of no
    characters.
    """

    def __init__(
        self,
        num_embeddings: Int,
        embedding_dim: Int,
        filters: Sequence[tuple[Int, Int]],
        output_dim: Int | None = None,
        *,
        num_highway: Int = 2,
        padding_idx: Int = 0,
        activation: Callable = F.relu,
        dtype=np.float32,
    ):
        super().__init__()
        if not len(filters):
            raise ValueError("filters must hold one pair (width, number) or more, got none")
        self.activation = activation
        self.embedding = Embedding(num_embeddings, embedding_dim, int(padding_idx), dtype=dtype)
        self.convolutions = ModuleList(
            Conv1d(embedding_dim, number, width, dtype=dtype) for width, number in filters
        )
        features = sum(number for _, number in filters)
        self.highway = Highway(features, num_highway, dtype=dtype)
        self.projection = None
        if output_dim is not None:
            self.projection = Linear(features, output_dim, dtype=dtype)

    def forward(self, input) -> Tensor:
        """Return a vector for each word."""
        characters = np.asarray(input.data if isinstance(input, Tensor) else input)
        if characters.ndim < 1 or not characters.shape[-1]:
            raise ValueError(
                f"input must have words of 1 character or more, got {characters.shape}"
            )
        *shape, length = characters.shape
        words = characters.reshape(int(np.prod(shape)), length)
        used = words != self.embedding.padding_idx
        # A window counts if it starts at or before the last character that is no padding.
        starts = np.maximum.accumulate(used[:, ::-1], axis=1)[:, ::-1]
        starts[:, 0] = True
        widest = max(convolution.kernel_size[0] for convolution in self.convolutions)
        words = np.pad(words, [(0, 0), (0, widest - 1)], constant_values=self.embedding.padding_idx)
        x = self.embedding(words).transpose(1, 2)
        features = []
        for convolution in self.convolutions:
            y = convolution(x[:, :, : length + convolution.kernel_size[0] - 1])
            features.append(y.masked_fill(~starts[:, None], -np.inf).max(dim=-1))
        y = self.highway(self.activation(cat(features, dim=1)))
        y = y if self.projection is None else self.projection(y)
        return y.reshape(*shape, y.shape[1])


class ScalarMix(Module):
    """γ Σ_j softmax(s)_j h_j: one vector out of those of several layers (Peters et al., 2018).

    weight: (num_layers,), the s, and gamma: (1,), trained with the task; at first the mix is the
    mean of the layers. With layer_norm, each layer is normalised first, over its last axis.
    """

    def __init__(self, num_layers: Int, *, layer_norm: bool = False, dtype=np.float32):
        super().__init__()
        self.num_layers = _validate.integer("num_layers", num_layers, low=1)
        self.layer_norm = layer_norm
        self.weight = Parameter(np.zeros(self.num_layers, dtype))
        self.gamma = Parameter(np.ones(1, dtype))

    def forward(self, layers: Sequence[Tensor] | Tensor) -> Tensor:
        """Return the mix of num_layers tensors (…, d) of one shape."""
        if len(layers) != self.num_layers:
            raise ValueError(f"layers must be {self.num_layers} tensors, got {len(layers)}")
        layers = layers if isinstance(layers, Tensor) else stack(layers)
        if self.layer_norm:
            layers = F.layer_norm(layers, layers.shape[-1:])
        share = F.softmax(self.weight).reshape(-1, *[1] * (layers.ndim - 1))
        return self.gamma * (share * layers).sum(dim=0)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.num_layers}" + (", layer_norm=True" if self.layer_norm else "")
