"""Language models that give vectors for words: an n-gram network, and ELMo's two-way model."""

from types import ModuleType

import numpy as np

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network
from dlnotes.models.sequence import padding


class NeuralLanguageModel(Network):
    """Predict a word from the `context` words before it: (n, context) → logits (n, vocabulary).

    The vectors of the words side by side, a tanh layer, and a linear one (Bengio et al., 2003), to
    which with direct=True the vectors also go straight. Parameters: V d + h (1 + context d) + V (h
    + 1), and V context d with direct=True. What stands further back than `context` is not seen.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int = 4,
        embedding_dim: int = 64,
        hidden_size: int = 128,
        direct: bool = False,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.context = _validate.integer("context", context, low=1)
        self.embedding = nn.Embedding(vocabulary, embedding_dim)
        self.hidden = nn.Linear(context * embedding_dim, hidden_size)
        self.fc = nn.Linear(hidden_size, vocabulary)
        self.direct = None
        if direct:
            self.direct = nn.Linear(context * embedding_dim, vocabulary, bias=False)

    def forward(self, tokens):
        """Return the logits of the next word; ValueError unless there are `context` words."""
        if tokens.shape[1] != self.context:
            raise ValueError(f"tokens must be (n, {self.context}), got {tuple(tokens.shape)}")
        x = self.embedding(tokens).flatten(1)
        y = self.fc(self.hidden(x).tanh())
        return y if self.direct is None else y + self.direct(x)


class BiLM(Network):
    """ELMo's language model in two directions (Peters et al., 2018).

    Words come as characters (n, length, characters), 0 being padding. Convolutions over the
    characters, `filters` being (width, number) of each, the largest response of each filter, and a
    linear layer give a vector of `dim` numbers that knows no other word. From there LSTMs run over
    the words in both directions, apart from each other: num_layers of hidden_size with a projection
    back to `dim` each, every layer but the first added to its input. The forward states predict
    the next word, the backward ones the word before, with one output layer for both. ELMo has dim
    512, hidden_size 4096, filters up to 7 wide and highway layers in front of the projection.

    `lengths` (n,): what follows the first lengths[i] words of sentence i is padding.
    """

    def __init__(
        self,
        vocabulary: int,
        characters: int,
        char_dim: int = 16,
        filters: tuple[tuple[int, int], ...] = ((1, 16), (2, 32), (3, 64)),
        dim: int = 64,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: Number = 0.0,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.characters = nn.Embedding(characters, char_dim, 0)
        # So many zeros on both sides that every filter sees a window of nothing: how far words are
        # filled up changes nothing.
        self.convs = nn.ModuleList(
            nn.Conv1d(char_dim, number, width, padding=width) for width, number in filters
        )
        self.relu = nn.ReLU()
        self.project = nn.Linear(sum(number for _, number in filters), dim)
        self.dropout = nn.Dropout(dropout)
        layers = range(_validate.integer("num_layers", num_layers, low=1))
        for name in ("forward", "backward"):
            lstms = (nn.LSTM(dim, hidden_size, batch_first=True) for _ in layers)
            setattr(self, f"{name}_lstms", nn.ModuleList(lstms))
            projections = (nn.Linear(hidden_size, dim) for _ in layers)
            setattr(self, f"{name}_projections", nn.ModuleList(projections))
        self.fc = nn.Linear(dim, vocabulary)

    def embed(self, characters):
        """Return a vector (n, length, dim) for each word, from its characters alone."""
        F, (n, length, letters) = self.nn.functional, characters.shape
        x = self.characters(characters.reshape(n * length, letters)).transpose(1, 2)
        maps = [self.relu(conv(x)) for conv in self.convs]
        largest = [F.max_pool1d(y, y.shape[2]).flatten(1) for y in maps]
        return self.project(_engine.cat(largest, 1)).reshape(n, length, -1)

    def directions(self, characters, lengths=None):
        """Return (forward, backward): for each direction the states (n, length, dim) of each layer.

        The first of each is the vector of `embed`. A forward state knows the words up to its own, a
        backward state those from its own on.
        """
        x, shape = self.embed(characters), tuple(characters.shape[:2])
        order = reversal(shape, lengths)
        turned = [backwards(y, order) for y in self.run(backwards(x, order), "backward")]
        return self.run(x, "forward"), turned

    def run(self, x, direction: str):
        """Return x and the states of each layer of one direction."""
        states = [x]
        lstms = getattr(self, f"{direction}_lstms")
        projections = getattr(self, f"{direction}_projections")
        for i, (lstm, project) in enumerate(zip(lstms, projections, strict=True)):
            y = project(lstm(self.dropout(states[-1]))[0])
            states.append(y + states[-1] if i else y)
        return states

    def layers(self, characters, lengths=None):
        """Return num_layers + 1 tensors (n, length, 2 dim), both directions side by side."""
        pairs = zip(*self.directions(characters, lengths), strict=True)
        return [_engine.cat(pair, 2) for pair in pairs]

    def forward(self, characters, lengths=None):
        """Return the logits (n, length, vocabulary) of each next word and of each word before."""
        states = self.directions(characters, lengths)
        return tuple(self.fc(self.dropout(one[-1])) for one in states)

    def loss(self, characters, words, lengths=None):
        """Return the mean cross-entropy of both directions; words (n, length) as numbers.

        Each word but the first is predicted from those before it, each but the last from those
        after it; e to its power is the perplexity.
        """
        F, shape = self.nn.functional, tuple(words.shape)
        after, before = self(characters, lengths)
        words = np.asarray(_validate.without_tensor(words))
        counts = np.ones(shape, bool) if lengths is None else ~padding(shape, lengths)
        answers = np.where(counts, words, -100).astype(np.int64)
        losses = []
        for logits, wanted in ((after[:, :-1], answers[:, 1:]), (before[:, 1:], answers[:, :-1])):
            wanted = np.where(counts[:, 1:], wanted, -100)  # of pairs that hold no padding
            flat = logits.reshape(-1, logits.shape[2])
            losses.append(F.cross_entropy(flat, _engine.constant(wanted.reshape(-1), flat)))
        return (losses[0] + losses[1]) / 2


class ELMo(Network):
    """Vectors of words in their sentence (Peters et al., 2018): γ Σ_j softmax(s)_j h_j.

    (n, length, characters) → (n, length, 2 dim). h_j are the layers of a `BiLM`, trained before;
    s (num_layers + 1) and γ are trained with the task that uses the vectors, which learns which
    layers serve it. At first the mix is their mean. freeze=True leaves the language model alone.
    """

    def __init__(self, language_model, freeze: bool = True, *, nn: ModuleType = nn):
        super().__init__()
        self.language_model, self.freeze = language_model, freeze
        count = len(language_model.forward_lstms) + 1
        like = _engine.sample(language_model)
        dtype = np.asarray(_validate.without_tensor(like)).dtype
        self.weight = nn.Parameter(_engine.leaf(np.zeros(count, dtype), nn))
        self.gamma = nn.Parameter(_engine.leaf(np.ones(1, dtype), nn))

    def forward(self, characters, lengths=None):
        """Return a vector for each word."""
        if self.freeze:
            with _engine.functions(self.weight).no_grad():
                layers = self.language_model.layers(characters, lengths)
        else:
            layers = self.language_model.layers(characters, lengths)
        share = self.nn.functional.softmax(self.weight, 0)
        mixed = share[0] * layers[0]
        for i, layer in enumerate(layers[1:], start=1):
            mixed = mixed + share[i] * layer
        return self.gamma * mixed


def reversal(shape, lengths) -> np.ndarray:
    """Return (n, length): the place that each place changes with when sentences are turned round.

    Padding stays behind.
    """
    places = np.broadcast_to(np.arange(shape[1]), shape)
    if lengths is None:
        return places[:, ::-1].copy()
    lengths = np.asarray(_validate.without_tensor(lengths))[:, None]
    return np.where(places < lengths, lengths - 1 - places, places)


def backwards(x, order: np.ndarray):
    """Return x (n, length, d) with the words of each sentence in another order."""
    n, length = order.shape
    rows = (np.arange(n)[:, None] * length + order).reshape(-1)
    return x.reshape(n * length, -1)[_engine.constant(rows, x)].reshape(n, length, -1)
