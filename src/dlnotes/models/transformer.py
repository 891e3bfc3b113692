"""Transformers: encoder-decoder (Vaswani et al., 2017), GPT and BERT, each at any size.

Sequences are words or characters as numbers, (n, length).

d_model: numbers for each word, which nhead, the number of attention's heads, divides; num_layers of
each stack; dropout: on embeddings, attention's weights (as MultiheadAttention does) and what is
added to a path.
"""

from types import ModuleType

import numpy as np

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.kernels import sinusoidal_positions
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class TransformerSeq2Seq(Network):
    """Translate: source (n, s) and target (n, t) → logits (n, t, target_vocabulary).

    The paper's network: embeddings times √d_model plus sinusoidal positions; in the encoder
    self-attention and a network of two layers; in the decoder self-attention that sees no later
    word, attention to the encoder's output, and such a network. Each part is added to its input
    and normalised after (norm_first=True: before, which trains without warm-up; then a last
    normalisation follows each stack). The paper has d_model=512, nhead=8, 6 layers of each and
    2,048 units, and shares one table between both embeddings and the last layer; here each has its
    own. In training `target` is shifted, as in `Seq2Seq`.
    dim_feedforward: units in the hidden layer of each network of two layers.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        d_model: int = 64,
        nhead: int = 4,
        num_layers: int = 2,
        dim_feedforward: int = 128,
        dropout: Number = 0.1,
        norm_first: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        layer = (d_model, nhead, dim_feedforward, dropout)
        settings = {"batch_first": True, "norm_first": norm_first}
        self.source_embedding = nn.Embedding(source_vocabulary, d_model)
        self.target_embedding = nn.Embedding(target_vocabulary, d_model)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(*layer, **settings) for _ in range(num_layers)
        )
        self.decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(*layer, **settings) for _ in range(num_layers)
        )
        self.encoder_norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.decoder_norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.fc = nn.Linear(d_model, target_vocabulary)
        xavier_init(self)

    def embed(self, embedding, tokens):
        """Return √d_model times the embedded words, plus their positions."""
        x = embedding(tokens)
        positions = sinusoidal_positions(x.shape[1], x.shape[2], np.float64)
        return self.dropout(x * x.shape[2] ** 0.5 + _engine.constant(positions, x))

    def encode(self, source, source_padding=None):
        """Return the encoder's output (n, s, d_model); source_padding (n, s) is True at padding."""
        x = self.embed(self.source_embedding, source)
        for layer in self.encoder:
            x = layer(x, src_key_padding_mask=source_padding)
        return self.encoder_norm(x)

    def decode(self, target, memory, source_padding=None):
        """Return the logits of each next word of the target."""
        x = self.embed(self.target_embedding, target)
        mask = causal_mask(x)
        for layer in self.decoder:
            x = layer(x, memory, tgt_mask=mask, memory_key_padding_mask=source_padding)
        return self.fc(self.decoder_norm(x))

    def forward(self, source, target, source_padding=None):
        """Return the logits of each next word of the target."""
        return self.decode(target, self.encode(source, source_padding), source_padding)

    def translate(self, source, begin: int, length: int, source_padding=None):
        """Return words (n, length), the likeliest at each step; cut each row at its end.

        Every step runs the decoder on all words so far.
        """
        source = _engine.numbers(source, self)
        with _engine.functions(source).no_grad():
            memory = self.encode(source, source_padding)
            words = _engine.numbers(np.full((source.shape[0], 1), begin), self)
            for _ in range(_validate.integer("length", length, low=1)):
                logits = self.decode(words, memory, source_padding)
                words = _engine.cat([words, _engine.draw(logits[:, -1], 0)], 1)
        return words[:, 1:]


class Block(Network):
    """A pre-norm transformer block: x + attention(norm(x)), then x + network(norm(x))."""

    def __init__(self, d_model: int, nhead: int, dropout: Number, *, nn: ModuleType = nn):
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.attention = nn.MultiheadAttention(d_model, nhead, dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(d_model)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, 4 * d_model),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * d_model, d_model),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask):
        """Return the sequence, of the same shape; `mask` (t, t) is True where nobody may look."""
        y = self.norm1(x)
        y, _ = self.attention(y, y, y, attn_mask=mask, need_weights=False)
        x = x + self.dropout(y)
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(Network):
    """Predict the next word: (n, length) → logits (n, length, vocabulary), length ≤ max_len.

    A decoder alone, as GPT-2 (Radford et al., 2019): learned positions, pre-norm blocks with GELU
    and a network four times as wide, a last normalisation, and the embedding once more as the last
    layer's weight. (The first GPT of 2018 normalised after each part.) At vocabulary=50257,
    max_len=1024, d_model=768, nhead=12, num_layers=12: 124,439,808 parameters, those of GPT-2's
    smallest. Weights start with deviation 0.02, those that end a branch smaller by √(2 num_layers);
    biases at 0.
    ValueError for more than max_len words.
    """

    def __init__(
        self,
        vocabulary: int,
        max_len: int = 128,
        d_model: int = 64,
        nhead: int = 4,
        num_layers: int = 2,
        dropout: Number = 0.0,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.max_len = _validate.integer("max_len", max_len, low=1)
        self.embedding = nn.Embedding(vocabulary, d_model)
        self.positions = nn.Embedding(max_len, d_model)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(d_model, nhead, dropout, nn=nn) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.fc = nn.Linear(d_model, vocabulary, bias=False)
        self.fc.weight = self.embedding.weight
        normal_init(self)
        for block in self.blocks:
            for last in (block.attention.out_proj, block.mlp[2]):
                nn.init.normal_(last.weight, 0.0, 0.02 / (2 * num_layers) ** 0.5)

    def forward(self, tokens):
        """Return the logits of each next word."""
        x = self.embedding(tokens)
        x = self.dropout(x + self.positions(places(x, self.max_len)))
        mask = causal_mask(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.fc(self.norm(x))

    def generate(self, tokens, length: int, temperature: Number = 1.0, generator=None):
        """Return `tokens` (n, start) with `length` more, drawn one after another.

        As `RNNLanguageModel.generate`. Each step looks at the last max_len words, all anew.
        """
        tokens = _engine.numbers(tokens, self)
        with _engine.functions(tokens).no_grad():
            for _ in range(_validate.integer("length", length, low=0)):
                logits = self(tokens[:, -self.max_len :])
                new = _engine.draw(logits[:, -1], temperature, generator)
                tokens = _engine.cat([tokens, new], 1)
        return tokens


class BERT(Network):
    """Fill gaps: (n, length) → logits (n, length, vocabulary), from the words on both sides.

    An encoder alone (Devlin et al., 2019): word, position and segment embeddings, normalised;
    post-norm layers with GELU; a head of linear layer, GELU and normalisation before the embedding
    as the last layer's weight. With a tenth or so of the words replaced by a mark, it is trained to
    name them. At vocabulary=30522, max_len=512, d_model=768, nhead=12, num_layers=12:
    109,514,298 parameters, those of the base model with the head of masked words and without the
    "pooler". Weights start with deviation 0.02, biases at 0.
    segments: how many kinds of parts there are. ValueError for more than max_len words.
    """

    def __init__(
        self,
        vocabulary: int,
        max_len: int = 128,
        d_model: int = 64,
        nhead: int = 4,
        num_layers: int = 2,
        segments: int = 2,
        dropout: Number = 0.1,
        padding_idx: int | None = None,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.max_len = _validate.integer("max_len", max_len, low=1)
        self.embedding = nn.Embedding(vocabulary, d_model, padding_idx)
        self.positions = nn.Embedding(max_len, d_model)
        self.segments = nn.Embedding(segments, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        layer = (d_model, nhead, 4 * d_model, dropout, "gelu")
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(*layer, batch_first=True) for _ in range(num_layers)
        )
        self.head = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.LayerNorm(d_model))
        self.fc = nn.Linear(d_model, vocabulary)
        self.fc.weight = self.embedding.weight
        normal_init(self)

    def encode(self, tokens, segments=None, padding=None):
        """Return a vector (n, length, d_model) for each word, from all words around it.

        segments: integers like tokens, which part of a pair a word is in, 0 if not given;
        padding: bool like tokens, True where there is no word.
        """
        x = self.embedding(tokens)
        if segments is None:
            segments = _engine.constant(np.zeros((1, x.shape[1]), np.int64), x)
        x = x + self.positions(places(x, self.max_len)) + self.segments(segments)
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        return x

    def forward(self, tokens, segments=None, padding=None):
        """Return the logits of the word at each place."""
        return self.fc(self.head(self.encode(tokens, segments, padding)))


# ---- pieces --------------------------------------------------------------------------------------


def causal_mask(x):
    """Return (length, length) of bool for x (n, length, d): True where a word stands later."""
    return _engine.constant(np.triu(np.ones((x.shape[1],) * 2, bool), 1), x)


def places(x, max_len: int):
    """Return the positions 0 … length - 1 of x (n, length, d)."""
    if x.shape[1] > max_len:
        raise ValueError(f"tokens must be at most max_len = {max_len} long, got {x.shape[1]}")
    return _engine.constant(np.arange(x.shape[1]), x)


def xavier_init(network) -> None:
    """Draw every weight matrix by Xavier's uniform rule, embeddings with deviation 1/√d."""
    nn = network.nn
    for parameter in network.parameters():
        if len(parameter.shape) > 1:
            nn.init.xavier_uniform_(parameter)
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, module.embedding_dim**-0.5)


def normal_init(network) -> None:
    """Draw weights normally with deviation 0.02; biases 0, norms as they are."""
    nn = network.nn
    for name, parameter in network.named_parameters():
        if len(parameter.shape) > 1:
            nn.init.normal_(parameter, 0.0, 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
