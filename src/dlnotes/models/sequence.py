"""Recurrent networks: language model, tagger, classifier, encoder-decoder with attention.

Sequences are words or characters as numbers, (n, length). Where `lengths` (n,) is given, what
follows the first lengths[i] numbers of sequence i is padding: it changes nothing before it.

embedding_dim: numbers for each word; hidden_size: those of a state, in each direction; cell: "rnn",
"lstm" or "gru"; num_layers of them. With dlnotes.nn, ValueError for lengths outside 1 … length.
"""

from types import ModuleType
from typing import Any

import numpy as np

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network

CELLS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


class RNNLanguageModel(Network):
    """Predict the next word or character: (n, length) → logits (n, length, vocabulary), state.

    Embedding, `num_layers` recurrent layers of `cell` "rnn", "lstm" or "gru", a linear layer
    (Mikolov et al., 2010). The state after one piece of text may be given with the next piece.
    tie_weights=True uses the embedding as the last layer's weight too (Press and Wolf, 2017); then
    embedding_dim must be hidden_size. dropout: on embeddings, between layers and on outputs.
    Parameters: V d for the table, V (h + 1) for the last layer, and g (d h + h² + 2h) for each
    layer with g = 1, 4 or 3 gates.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding_dim: int = 64,
        hidden_size: int = 128,
        num_layers: int = 1,
        cell: str = "lstm",
        dropout: Number = 0.0,
        tie_weights: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.rnn = recurrent(cell, nn)(
            embedding_dim,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.fc = nn.Linear(hidden_size, vocabulary)
        if tie_weights:
            if embedding_dim != hidden_size:
                sizes = f"{embedding_dim} and {hidden_size}"
                raise ValueError(f"tied weights need embedding_dim = hidden_size, got {sizes}")
            self.fc.weight = self.embedding.weight

    def forward(self, tokens, state=None):
        """Return the logits of each next word, and the state at the end."""
        x = self.dropout(self.embedding(tokens))
        output, state = self.rnn(x, state)
        return self.fc(self.dropout(output)), state

    def generate(self, tokens, length: int, temperature: Number = 1.0, generator=None):
        """Return `tokens` (n, start) with `length` more, drawn one after another.

        Low temperatures draw the likely words more often; 0 always takes the likeliest. Draws come
        from `generator`, by default `dlnotes.random.generator()`, on every engine.
        """
        tokens = _engine.numbers(tokens, self)
        with _engine.functions(tokens).no_grad():
            logits, state = self(tokens)
            for _ in range(_validate.integer("length", length, low=0)):
                new = _engine.draw(logits[:, -1], temperature, generator)
                tokens = _engine.cat([tokens, new], 1)
                logits, state = self(new, state)
        return tokens


class SequenceTagger(Network):
    """A tag for each word: (n, length) → logits (n, length, tags).

    A recurrent layer reads the sentence, by default in both directions, so that a tag may depend on
    what follows (Graves and Schmidhuber, 2005; Huang, Xu and Yu, 2015, with a CRF, left out here).
    dropout: on embeddings, between layers and on outputs.
    """

    def __init__(
        self,
        vocabulary: int,
        tags: int,
        embedding_dim: int = 64,
        hidden_size: int = 64,
        num_layers: int = 1,
        cell: str = "lstm",
        bidirectional: bool = True,
        dropout: Number = 0.0,
        padding_idx: int | None = None,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_dim, padding_idx)
        self.dropout = nn.Dropout(dropout)
        self.rnn = recurrent(cell, nn)(
            embedding_dim,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
        )
        self.fc = nn.Linear(hidden_size * (1 + bidirectional), tags)

    def forward(self, tokens, lengths=None):
        """Return the logits of each word's tag; those of padding mean nothing."""
        x = self.dropout(self.embedding(tokens))
        output, _ = run(self.rnn, x, lengths, self.nn)
        return self.fc(self.dropout(output))


class SequenceClassifier(Network):
    """One class for a whole sequence: (n, length) → logits (n, num_classes).

    A recurrent layer, then its last state, or with pool="mean" the mean of all its states (both
    directions' with bidirectional=True), and a linear layer.
    pool: "last" or "mean"; dropout: before the linear layer.
    """

    def __init__(
        self,
        vocabulary: int,
        num_classes: int = 2,
        embedding_dim: int = 64,
        hidden_size: int = 64,
        cell: str = "lstm",
        bidirectional: bool = False,
        pool: str = "last",
        dropout: Number = 0.0,
        padding_idx: int | None = None,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.pool = _validate.one_of("pool", pool, ["last", "mean"])
        self.embedding = nn.Embedding(vocabulary, embedding_dim, padding_idx)
        self.rnn = recurrent(cell, nn)(
            embedding_dim, hidden_size, batch_first=True, bidirectional=bidirectional
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden_size * (1 + bidirectional), num_classes)

    def forward(self, tokens, lengths=None):
        """Return the logits."""
        output, state = run(self.rnn, self.embedding(tokens), lengths, self.nn)
        if self.pool == "mean":
            weights = _engine.constant(average_weights(tokens.shape, lengths), output)
            summary = (output * weights.unsqueeze(2)).sum(1)
        else:
            last = state[0] if isinstance(state, tuple) else state  # an LSTM's is (h, c)
            summary = last.transpose(0, 1).flatten(1)  # (directions, n, h) → (n, directions · h)
        return self.fc(self.dropout(summary))


class Seq2Seq(Network):
    """Encoder and decoder: source (n, s) and target (n, t) → logits (n, t, target_vocabulary).

    The encoder's last state starts the decoder (Sutskever et al., 2014; Cho et al., 2014). With
    attention, each decoder state also looks at all encoder states: a = softmax(score), context =
    Σ a h, and tanh(W [context; state]) goes to the last layer (Luong et al., 2015). The score is
    s · W h ("dot", Luong's "general") or v · tanh(W s + U h) ("additive", Bahdanau et al., 2015).
    Bahdanau's decoder feeds the context back into the next step, and its encoder runs both ways;
    here the decoder's states do not depend on the context, so that in training all steps are one
    call.

    In training `target` is the right sentence, shifted: it starts with the number of "begin", and
    the logits at each place are for the next word (teacher forcing).
    attention: "dot", "additive" or None; dropout: on embeddings, between layers and before the last
    one.
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        embedding_dim: int = 64,
        hidden_size: int = 128,
        num_layers: int = 1,
        cell: str = "gru",
        attention: str | None = None,
        dropout: Number = 0.0,
        padding_idx: int | None = None,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        RNN = recurrent(cell, nn)
        settings = {"batch_first": True, "dropout": dropout if num_layers > 1 else 0.0}
        self.source_embedding = nn.Embedding(source_vocabulary, embedding_dim, padding_idx)
        self.target_embedding = nn.Embedding(target_vocabulary, embedding_dim, padding_idx)
        self.encoder = RNN(embedding_dim, hidden_size, num_layers, **settings)
        self.decoder = RNN(embedding_dim, hidden_size, num_layers, **settings)
        self.attention = None
        if attention is not None:
            kinds = {"dot": DotAttention, "additive": AdditiveAttention}
            self.attention = kinds[_validate.one_of("attention", attention, kinds)](
                hidden_size, nn=nn
            )
            self.combine = nn.Linear(2 * hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden_size, target_vocabulary)

    def encode(self, source, source_lengths=None):
        """Return the encoder's states (n, s, hidden_size), and its last, for `decode`."""
        x = self.dropout(self.source_embedding(source))
        return run(self.encoder, x, source_lengths, self.nn)

    def decode(self, target, memory, state, source_lengths=None):
        """Return (logits, weights, state) for target words given so far.

        weights: (n, t, s), how much each target word looks at each source word, or None.
        """
        output, state = self.decoder(self.dropout(self.target_embedding(target)), state)
        weights = None
        if self.attention is not None:
            hidden = None
            if source_lengths is not None:
                hidden = _engine.constant(padding(memory.shape[:2], source_lengths), memory)
            weights = self.attention(output, memory, hidden)
            output = self.combine(_engine.cat([weights @ memory, output], 2)).tanh()
        return self.fc(self.dropout(output)), weights, state

    def forward(self, source, target, source_lengths=None):
        """Return the logits of each next word of the target."""
        memory, state = self.encode(source, source_lengths)
        return self.decode(target, memory, state, source_lengths)[0]

    def translate(self, source, begin: int, length: int, source_lengths=None):
        """Return (words (n, length), weights (n, length, s) or None), the likeliest at each step.

        It does not stop at an end: cut each row there.
        """
        source = _engine.numbers(source, self)
        with _engine.functions(source).no_grad():
            memory, state = self.encode(source, source_lengths)
            word = _engine.numbers(np.full((source.shape[0], 1), begin), self)
            words, looked = [], []
            for _ in range(_validate.integer("length", length, low=1)):
                logits, weights, state = self.decode(word, memory, state, source_lengths)
                word = _engine.draw(logits[:, -1], 0)
                words.append(word)
                looked.append(weights)
            weights = None if self.attention is None else _engine.cat(looked, 1)
            return _engine.cat(words, 1), weights


class DotAttention(Network):
    """Weights of score = s · W h: states (n, t, d), memory (n, s, d) → (n, t, s).

    size: d; W is a Linear without bias. (Luong, Pham and Manning, 2015, "general".)
    """

    def __init__(self, size: int, *, nn: ModuleType = nn):
        super().__init__()
        self.key = nn.Linear(size, size, bias=False)

    def forward(self, states, memory, hidden=None):
        """Return the weights; `hidden` (n, s) is True where nobody may look."""
        scores = states @ self.key(memory).transpose(1, 2)
        return masked_softmax(scores, hidden, self.nn)


class AdditiveAttention(Network):
    """Weights of score = v · tanh(W s + U h): states (n, t, d), memory (n, s, d) → (n, t, s).

    size: d, also the length of v. (Bahdanau, Cho and Bengio, 2015.)
    """

    def __init__(self, size: int, *, nn: ModuleType = nn):
        super().__init__()
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size, bias=False)
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, states, memory, hidden=None):
        """Return the weights; `hidden` (n, s) is True where nobody may look."""
        queries, keys = self.query(states).unsqueeze(2), self.key(memory).unsqueeze(1)
        scores = self.score((queries + keys).tanh()).squeeze(3)
        return masked_softmax(scores, hidden, self.nn)


# ---- pieces --------------------------------------------------------------------------------------


def recurrent(cell: str, nn: ModuleType) -> Any:
    """Return the class of recurrent layers of that name."""
    return getattr(nn, CELLS[_validate.one_of("cell", cell, CELLS)])


def run(rnn, x, lengths, nn: ModuleType):
    """Return (states at each step, last state) of a recurrent layer for padded sequences."""
    if lengths is None:
        return rnn(x)
    tools = nn.utils.rnn
    lengths = np.asarray(_validate.without_tensor(lengths), np.int64).tolist()
    packed = tools.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, state = rnn(packed)
    output, _ = tools.pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])
    return output, state


def padding(shape, lengths) -> np.ndarray:
    """Return an array (n, length) of bool that is True at padding."""
    lengths = np.asarray(_validate.without_tensor(lengths))
    return np.arange(shape[1]) >= lengths[:, None]


def average_weights(shape, lengths) -> np.ndarray:
    """Return weights (n, length) that take the mean of what is not padding."""
    counted = np.ones(tuple(shape), np.float32) if lengths is None else ~padding(shape, lengths)
    return (counted / counted.sum(1, keepdims=True)).astype(np.float32)


def masked_softmax(scores, hidden, nn: ModuleType):
    """Return softmax along the last axis, 0 where `hidden` (n, s) is True."""
    if hidden is not None:
        scores = scores.masked_fill(hidden.unsqueeze(1), -np.inf)
    return nn.functional.softmax(scores, -1)
