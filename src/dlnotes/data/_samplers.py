"""Which samples come when: samplers for `DataLoader`, by weight and by identity."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer

from dlnotes import _validate
from dlnotes.data._loader import _generator


class WeightedRandomSampler:
    """Indices drawn in proportion to weights, as `torch.utils.data.WeightedRandomSampler`.

    With weights 1 / (size of its class) for each sample, rare classes come as often as frequent
    ones. replacement=False draws no index twice. Each pass draws anew, from `generator` or
    `dlnotes.random.generator()`.

    ValueError for weights that are negative, not finite or all 0, or too few to draw from.
    """

    def __init__(
        self,
        weights,
        num_samples: int,
        replacement: bool = True,
        generator: np.random.Generator | None = None,
    ):
        weights = np.asarray(weights, np.float64)
        if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError("weights must be finite numbers (n,), at least 0")
        if not weights.any():
            raise ValueError("weights must not all be 0")
        self.weights, self.replacement = weights, replacement
        self.num_samples = _validate.integer("num_samples", num_samples, low=1)
        if not replacement and self.num_samples > np.count_nonzero(weights):
            raise ValueError(
                f"num_samples must be at most {np.count_nonzero(weights)} without replacement, "
                f"got {self.num_samples}"
            )
        self.generator = generator

    def __len__(self) -> int:
        """Return how many indices a pass has."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        generator, share = _generator(self.generator), self.weights / self.weights.sum()
        size = (len(share), self.num_samples, self.replacement)
        return iter(generator.choice(*size, share).tolist())


class IdentityBatchSampler:
    """Batches of `identities` people with `samples` pictures of each, for `batch_sampler`.

    In a batch drawn at random most people are there once, and there is no pair of one person to
    learn from; here each picture has samples - 1 partners (Hermans, Beyer and Leibe, 2017).
    `labels` (n,) says who is in each picture. A pass goes through the identities in a new order,
    `identities` of them in each of its ⌊number of identities / identities⌋ batches; of one with
    fewer pictures than `samples` some come twice. Draws come from `generator` or
    `dlnotes.random.generator()`.

    ValueError for fewer identities than a batch needs.
    """

    def __init__(
        self,
        labels: Integer[np.ndarray, " n"],
        identities: int,
        samples: int,
        generator: np.random.Generator | None = None,
    ):
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(f"labels must be integers (n,), got {labels.dtype} {labels.shape}")
        self.identities = _validate.integer("identities", identities, low=1)
        self.samples = _validate.integer("samples", samples, low=1)
        self.groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        if len(self.groups) < self.identities:
            raise ValueError(
                f"identities must be at most the {len(self.groups)} there are, got {identities}"
            )
        self.generator = generator

    def __len__(self) -> int:
        """Return the number of batches of a pass."""
        return len(self.groups) // self.identities

    def __iter__(self) -> Iterator[list[int]]:
        generator = _generator(self.generator)
        order = generator.permutation(len(self.groups))
        for batch in range(len(self)):
            chosen = order[batch * self.identities : (batch + 1) * self.identities]
            yield [int(i) for group in chosen for i in self._some(self.groups[group], generator)]

    def _some(self, group, generator):
        """Return `samples` of a person's pictures: all of them before any comes again."""
        rounds = -(-self.samples // len(group))
        return np.concatenate([generator.permutation(group) for _ in range(rounds)])[: self.samples]
