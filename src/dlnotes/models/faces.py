"""Verification: networks that map images to vectors, near for one person and far for two."""

from types import ModuleType

from dlnotes import _validate, nn
from dlnotes._validate import Number
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class EmbeddingNet(Network):
    """Images (n, c, h, w) → vectors (n, embedding_dim) of length 1.

    Four 3×3 convolutions with batch norm, ReLU and pooling, the mean over the image, a linear
    layer, and division by the length, so that distances lie between 0 and 2 (Schroff, Kalenichenko
    and Philbin, 2015, FaceNet, which has an inception network here and 128 numbers).
    normalize=False leaves the lengths as they are.
    Sides of 16 pixels or more.
    """

    def __init__(
        self,
        embedding_dim: int = 64,
        in_channels: int = 3,
        width: Number = 1.0,
        normalize: bool = True,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.normalize, self.embedding_dim = normalize, embedding_dim
        self.features = nn.Sequential()
        for channels in (32, 64, 128, 128):
            out_channels = _engine.scaled(channels, width)
            self.features.append(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False))
            self.features.append(nn.BatchNorm2d(out_channels))
            self.features.append(nn.ReLU())
            self.features.append(nn.MaxPool2d(2))
            in_channels = out_channels
        self.fc = nn.Linear(in_channels, embedding_dim)
        _engine.he_init(self)

    def forward(self, x):
        """Return the vectors."""
        vectors = self.fc(self.features(x).mean((2, 3)))
        return unit_length(vectors) if self.normalize else vectors


class SiameseNetwork(Network):
    """Two images, one network for both: (n, c, h, w) twice → a number (n,) for each pair.

    (Bromley et al., 1993; Chopra, Hadsell and LeCun, 2005.) `embedding` maps images to vectors
    (n, embedding_dim); by default it is an `EmbeddingNet`. compare:

    - "distance": the Euclidean distance of the two vectors, for contrastive loss;
    - "difference": a logit of being the same, Σ w |a - b| + c (Koch, Zemel and Salakhutdinov,
      2015);
    - "chi_square": likewise Σ w (a - b)² / (a + b) + c (Taigman et al., 2014, DeepFace), of vectors
      made non-negative by ReLU.
    """

    def __init__(self, embedding=None, compare: str = "distance", *, nn: ModuleType = nn):
        super().__init__()
        kinds = ["distance", "difference", "chi_square"]
        self.compare = _validate.one_of("compare", compare, kinds)
        self.embedding = EmbeddingNet(nn=nn) if embedding is None else embedding
        if compare != "distance":
            self.relu = nn.ReLU()
            self.fc = nn.Linear(self.embedding.embedding_dim, 1)

    def forward(self, x1, x2):
        """Return the distance, or the logit of being the same; as many x1 as x2."""
        if len(x1) != len(x2):
            raise ValueError(f"x1 and x2 must be pairs, got {len(x1)} and {len(x2)} images")
        a, b = self.embedding(x1), self.embedding(x2)
        if self.compare == "distance":
            return _length(a - b)
        if self.compare == "difference":
            return self.fc((a - b).abs()).flatten()
        a, b = self.relu(a), self.relu(b)
        return self.fc((a - b) * (a - b) / (a + b + 1e-6)).flatten()


def unit_length(x):
    """Return vectors (n, d), each divided by its length."""
    return x / _length(x).unsqueeze(1)


def _length(x):
    # The small number keeps the derivative of the root finite at 0.
    return ((x * x).sum(1) + 1e-12).sqrt()
