"""Data sets: small real ones that travel with the package, large ones by download.

>>> from dlnotes import data
>>> mnist = data.load("mnist")
>>> mnist.train
Split(x=uint8 (10000, 28, 28), y=int64 (10000,))

`available()` lists them all. Every bundled file is checked against its SHA-256 when it is first
used; each set carries its licence, source and data sheet.
"""

from pathlib import Path

from dlnotes.data import _catalogue, transforms
from dlnotes.data._available import Available, available
from dlnotes.data._catalogue import CorruptFileError
from dlnotes.data._download import DownloadError, cache_folder
from dlnotes.data._loader import (
    DataLoader,
    Subset,
    TensorDataset,
    random_split,
    train_test_split,
)
from dlnotes.data._records import (
    AnalogyDataset,
    Dataset,
    Document,
    FacesDataset,
    GroceryDataset,
    LabelledDataset,
    Pair,
    PairDataset,
    Photo,
    PhotoDataset,
    Poem,
    PoemDataset,
    Rated,
    Sentence,
    SentenceDataset,
    SentimentDataset,
    Split,
    Sprite,
    SpriteDataset,
    TextDataset,
    Timing,
    TimingsDataset,
    VectorsDataset,
    WeightsDataset,
)
from dlnotes.data._samplers import IdentityBatchSampler, WeightedRandomSampler
from dlnotes.data._scale import at_scale, images_to_float
from dlnotes.data._scenes import Scenes, scenes
from dlnotes.data._vocabulary import Vocabulary, mask_tokens
from dlnotes.data._words import (
    AliasSampler,
    cbow_windows,
    cooccurrences,
    keep_probability,
    noise_distribution,
    skip_gram_pairs,
)
from dlnotes.data.transforms import Transformed

__all__ = [
    "AliasSampler",
    "AnalogyDataset",
    "Available",
    "CorruptFileError",
    "DataLoader",
    "Dataset",
    "Document",
    "DownloadError",
    "FacesDataset",
    "GroceryDataset",
    "IdentityBatchSampler",
    "LabelledDataset",
    "Pair",
    "PairDataset",
    "Photo",
    "PhotoDataset",
    "Poem",
    "PoemDataset",
    "Rated",
    "Scenes",
    "Sentence",
    "SentenceDataset",
    "SentimentDataset",
    "Split",
    "Sprite",
    "SpriteDataset",
    "Subset",
    "TensorDataset",
    "TextDataset",
    "Timing",
    "TimingsDataset",
    "Transformed",
    "VectorsDataset",
    "Vocabulary",
    "WeightedRandomSampler",
    "WeightsDataset",
    "at_scale",
    "available",
    "cache_folder",
    "cbow_windows",
    "cooccurrences",
    "images_to_float",
    "keep_probability",
    "load",
    "mask_tokens",
    "noise_distribution",
    "path",
    "random_split",
    "scenes",
    "skip_gram_pairs",
    "train_test_split",
    "transforms",
]


def load(name: str, *, full: bool = False) -> Dataset:
    """Load the data set `name`; `available()` lists the names.

    Default scale reads the bundled files, after checking their SHA-256, and needs no network.
    Images are uint8 (`images_to_float` turns them into float32 in [0, 1]), class labels int64.
    `full=True` downloads the complete set once, to `cache_folder()`, which the environment
    variable DLNOTES_DATA sets; an interrupted download is continued.

    Raises ValueError for an unknown name or a set that has no such scale, `CorruptFileError`
    when a file is damaged, and `DownloadError` when a download is needed and fails.
    """
    from dlnotes.data import _bundled, _full, _tables

    entry = _catalogue.entry(name)
    if not isinstance(full, bool):
        raise TypeError(f"full must be a bool, got {type(full).__name__}")
    if full:
        return _full.load_full(name)
    if entry.full and not entry.files:
        raise ValueError(
            f"{name!r} has no bundled form: load({name!r}, full=True) downloads "
            f"{entry.full_bytes / 1e6:.0f} MB"
        )
    if entry.kind == "scikit-learn":
        return _tables.load_table(name)
    return _bundled.READERS[name](name)


def path(name: str, file: str | None = None) -> Path:
    """Return the path of a bundled file of the set `name`, checked against its SHA-256.

    `file` says which one when the set has several.
    """
    return _catalogue.bundled(name, file)
