"""What `load` returns: one frozen record type for each kind of data."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from dlnotes.data import _catalogue


class Split(NamedTuple):
    """One part of a data set: inputs `x` and targets `y`, equally long; `x, y = split` unpacks."""

    x: np.ndarray
    y: np.ndarray

    def __repr__(self) -> str:
        return f"Split(x={_describe(self.x)}, y={_describe(self.y)})"


def _describe(value: object) -> str:
    """Say what a field holds without printing it."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, str):
        return f"str of {len(value):,} characters" if len(value) > 60 else repr(value)
    if isinstance(value, dict) and len(value) <= 12:
        return "{" + ", ".join(f"{key}: {_describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | dict) and len(value) > 12:
        return f"{type(value).__name__} of {len(value):,}"
    return repr(value)


@dataclass(frozen=True, repr=False)
class Dataset:
    """What every data set has: its `name`, and from the manifest licence, source, data sheet."""

    name: str

    @property
    def _entry(self) -> _catalogue.Entry:
        return _catalogue.entry(self.name)

    @property
    def title(self) -> str:
        """One line that says what the set is."""
        return self._entry.title

    @property
    def licence(self) -> str:
        """The licence under which the data may be used."""
        return self._entry.licence

    @property
    def attribution(self) -> str:
        """Whom to name when the data are shown or passed on."""
        return self._entry.attribution

    @property
    def source(self) -> str:
        """Where the bytes came from."""
        return self._entry.source

    @property
    def citation(self) -> str:
        """The reference to cite."""
        return self._entry.citation

    @property
    def datasheet(self) -> str:
        """The data sheet (motivation, composition, collection, licence, flaws), as Markdown."""
        return self._entry.datasheet

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        rows = [
            f"  {name}: {_describe(value)}"
            for name, value in values.items()
            if value is not None and not (isinstance(value, tuple) and len(value) == 0)
        ]
        return "\n".join([f"{type(self).__name__}", *rows, f"  licence: {self.licence}"])


@dataclass(frozen=True, repr=False)
class LabelledDataset(Dataset):
    """Inputs with a target each, split into `train` and `test`.

    Class targets are int64 indices into `classes`; for regression `classes` is empty and the
    targets are float64. `feature_names` names the columns of a table. `train_index` and
    `test_index`, where they are known, are positions in the set that this one was drawn from.
    """

    train: Split
    test: Split
    classes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    train_index: np.ndarray | None = None
    test_index: np.ndarray | None = None


@dataclass(frozen=True, repr=False)
class GroceryDataset(LabelledDataset):
    """Fruit photos with 14 fine classes; `coarse_of[y]` is the coarse class (of 5) of `y`."""

    coarse_classes: tuple[str, ...] = ()
    coarse_of: np.ndarray | None = None


@dataclass(frozen=True, repr=False)
class FacesDataset(Dataset):
    """Synthetic faces: `images` uint8 (200 identities, 12 shots, 64, 64, 3).

    `metadata` maps each column (yaw, pitch, glasses, expression, male, age) to an array of
    shape (200, 12).
    """

    images: np.ndarray
    metadata: dict[str, np.ndarray]


class Timing(NamedTuple):
    """One kernel at one size, timed against PyTorch; None where there is no such pass or goal.

    A ratio is (median, lower quartile, upper quartile) of time here over time in PyTorch;
    `milliseconds` are those of a step, or of the one pass there is, `peak` the bytes that it
    allocates at its height and `data` those of inputs and results.
    """

    name: str
    kernel: str
    forward: tuple[float, float, float] | None
    backward: tuple[float, float, float] | None
    step: tuple[float, float, float] | None
    goals: tuple[float | None, float | None, float | None] | None
    milliseconds: float
    torch_milliseconds: float
    peak: int
    data: int


@dataclass(frozen=True, repr=False)
class TimingsDataset(Dataset):
    """Timings of this book's kernels, and the `conditions` under which they were taken."""

    timings: tuple[Timing, ...]
    conditions: dict[str, Any]


class Document(NamedTuple):
    """One text of a corpus with its heading."""

    title: str
    text: str


@dataclass(frozen=True, repr=False)
class TextDataset(Dataset):
    """A corpus: `documents` in order; `text` joins them without the headings."""

    documents: tuple[Document, ...]
    language: str

    @property
    def text(self) -> str:
        """All documents, one after another, a line feed between two."""
        return "\n".join(document.text for document in self.documents)


class Poem(NamedTuple):
    """A Tang quatrain; `text` keeps its punctuation."""

    title: str
    author: str
    text: str


@dataclass(frozen=True, repr=False)
class PoemDataset(Dataset):
    """Chinese quatrains with title and author."""

    poems: tuple[Poem, ...]


class Pair(NamedTuple):
    """A sentence and its translation, with who wrote them."""

    source: str
    target: str
    attribution: str


@dataclass(frozen=True, repr=False)
class PairDataset(Dataset):
    """Sentence pairs for translation."""

    pairs: tuple[Pair, ...]
    source_language: str
    target_language: str


class Sentence(NamedTuple):
    """A graded Chinese sentence: HSK `level` 1–6, segmentation, pinyin per syllable, English."""

    key: str
    level: int
    chinese: str
    words: tuple[str, ...]
    pinyin: tuple[str, ...]
    english: str


@dataclass(frozen=True, repr=False)
class SentenceDataset(Dataset):
    """Chinese sentences with word segmentation, pinyin and an English translation."""

    sentences: tuple[Sentence, ...]


class Rated(NamedTuple):
    """A review sentence, its origin ("movie" or "product") and its mean human rating −4 … 4."""

    origin: str
    rating: float
    text: str


@dataclass(frozen=True, repr=False)
class SentimentDataset(Dataset):
    """Review sentences with a mean human rating each."""

    sentences: tuple[Rated, ...]


@dataclass(frozen=True, repr=False)
class AnalogyDataset(Dataset):
    """Analogy questions: `sections` maps a section's name to quadruples a : b = c : d."""

    sections: dict[str, tuple[tuple[str, str, str, str], ...]]


@dataclass(frozen=True, repr=False)
class VectorsDataset(Dataset):
    """Word vectors: row i of `vectors` (float32) belongs to `words[i]`."""

    words: tuple[str, ...]
    vectors: np.ndarray

    def index(self) -> dict[str, int]:
        """Return word → row."""
        return {word: row for row, word in enumerate(self.words)}


@dataclass(frozen=True, repr=False)
class WeightsDataset(Dataset):
    """Pretrained weights: `state_dict` maps torchvision's parameter names to float32 arrays.

    They were stored as int8 with one scale per output channel and are multiplied out here.
    """

    state_dict: dict[str, np.ndarray]
    classes: tuple[str, ...] = ()


class Sprite(NamedTuple):
    """A small picture with transparency: uint8 (height, width, 4)."""

    label: str
    code_point: str
    image: np.ndarray


@dataclass(frozen=True, repr=False)
class SpriteDataset(Dataset):
    """RGBA sprites for generated detection scenes."""

    sprites: tuple[Sprite, ...]
    classes: tuple[str, ...]


class Photo(NamedTuple):
    """A photo or painting: uint8 (height, width, 3), with its own licence and credit."""

    name: str
    image: np.ndarray
    licence: str
    attribution: str


@dataclass(frozen=True, repr=False)
class PhotoDataset(Dataset):
    """Pictures of different sizes, reached by name or in order."""

    photos: tuple[Photo, ...]

    def __getitem__(self, name: str) -> Photo:
        for photo in self.photos:
            if photo.name == name:
                return photo
        raise KeyError(f"no picture {name!r}; there are {', '.join(p.name for p in self.photos)}")

    def __iter__(self) -> Iterator[Photo]:
        return iter(self.photos)

    def __len__(self) -> int:
        return len(self.photos)
