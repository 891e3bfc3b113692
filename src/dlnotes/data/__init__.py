"""Data sets: small real ones that travel with the package, large ones by download.

>>> from dlnotes import data
>>> mnist = data.load("mnist")
>>> mnist.train
Split(x=uint8 (10000, 28, 28), y=int64 (10000,))

`available()` lists them all. Every bundled file is checked against its SHA-256 when it is first
used; each set carries its licence, source and data sheet.
"""

from pathlib import Path

from dlnotes.data import _catalogue
from dlnotes.data._catalogue import CorruptFileError
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
    VectorsDataset,
    WeightsDataset,
)
from dlnotes.data._scale import at_scale, images_to_float

__all__ = [
    "AnalogyDataset",
    "CorruptFileError",
    "DataLoader",
    "Dataset",
    "Document",
    "FacesDataset",
    "GroceryDataset",
    "LabelledDataset",
    "Pair",
    "PairDataset",
    "Photo",
    "PhotoDataset",
    "Poem",
    "PoemDataset",
    "Rated",
    "Sentence",
    "SentenceDataset",
    "SentimentDataset",
    "Split",
    "Sprite",
    "SpriteDataset",
    "Subset",
    "TensorDataset",
    "TextDataset",
    "VectorsDataset",
    "WeightsDataset",
    "at_scale",
    "images_to_float",
    "load",
    "path",
    "random_split",
    "train_test_split",
]


def load(name: str, *, full: bool = False) -> Dataset:
    """Load the data set `name`; `available()` lists the names.

    Default scale reads the bundled files, after checking their SHA-256, and needs no network.
    Images are uint8 (`images_to_float` turns them into float32 in [0, 1]), class labels int64.

    Raises ValueError for an unknown name or a set that has no such scale, and
    `CorruptFileError` when a file is damaged.
    """
    from dlnotes.data import _bundled, _tables

    entry = _catalogue.entry(name)
    if full:
        raise NotImplementedError("full scale follows")
    if entry.kind == "scikit-learn":
        return _tables.load_table(name)
    return _bundled.READERS[name](name)


def path(name: str, file: str | None = None) -> Path:
    """Return the path of a bundled file of the set `name`, checked against its SHA-256.

    `file` says which one when the set has several.
    """
    return _catalogue.bundled(name, file)
