"""The multilayer perceptron."""

import itertools
from types import ModuleType

import numpy as np

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class MLP(Network):
    """Linear layers with an activation between them: (n, …) → (n, sizes[-1]).

    sizes: the number of inputs, of units in each hidden layer, and of outputs: (784, 128, 10).
    Each hidden layer is Linear, then, if wanted, `normalization` ("batch" or "layer"), the
    activation and dropout. Axes after the first are joined, so images may come as they are.
    Parameters: Σ (sizes[i] + 1) · sizes[i + 1], and two for each normalised unit.
    (Rumelhart, Hinton and Williams, 1986.)
    activation: "relu", "tanh", "sigmoid" and others, "identity"; dropout: after each activation.
    """

    def __init__(
        self,
        sizes: tuple[int | np.integer, ...] | list[int],
        activation: str = "relu",
        dropout: Number = 0.0,
        normalization: str | None = None,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes must hold two numbers or more, got {tuple(sizes)}")
        if normalization is not None:
            _validate.one_of("normalization", normalization, ["batch", "layer"])
        self.layers = nn.Sequential(nn.Flatten())
        for size, following in itertools.pairwise(sizes[:-1]):
            self.layers.append(nn.Linear(size, following))
            if normalization is not None:
                norm = nn.BatchNorm1d if normalization == "batch" else nn.LayerNorm
                self.layers.append(norm(following))
            self.layers.append(_engine.activation(activation, nn))
            if dropout:
                self.layers.append(nn.Dropout(dropout))
        self.layers.append(nn.Linear(sizes[-2], sizes[-1]))

    def forward(self, x):
        """Return the outputs, without an activation: logits or numbers."""
        return self.layers(x)
