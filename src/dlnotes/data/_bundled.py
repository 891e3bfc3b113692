"""Read the bundled files: one function for each data set, each returning its record."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dlnotes.data import _catalogue
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

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def _arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of the set's .npz file; pickled content is refused."""
    with np.load(_catalogue.bundled(name), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def _text(path: Path) -> str:
    """Return the content of a gzip-compressed UTF-8 file."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        return stream.read()


def _rows(name: str) -> Iterator[list[str]]:
    """Yield the columns of each line of a tab-separated file; lines with `# ` are comments."""
    for line in _text(_catalogue.bundled(name)).split("\n"):
        if line and not line.startswith("# "):
            yield line.split("\t")


def _table(name: str, file: str) -> dict[str, list[str]]:
    """Return the columns of a CSV file by name."""
    with _catalogue.bundled(name, file).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {column: [row[column] for row in rows] for column in rows[0]}


def _picture(source: Path | io.BytesIO, mode: str) -> np.ndarray:
    """Decode a picture to uint8 (height, width, channels)."""
    from PIL import Image

    with Image.open(source) as picture:
        return np.array(picture.convert(mode))


def _tiles(name: str, file: str, side: int) -> np.ndarray:
    """Cut a mosaic into its square tiles, row by row: uint8 (n, side, side, 3)."""
    mosaic = _picture(_catalogue.bundled(name, file), "RGB")
    rows, columns = mosaic.shape[0] // side, mosaic.shape[1] // side
    tiles = mosaic.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(rows * columns, side, side, 3))


def _labelled_images(name: str, classes: tuple[str, ...]) -> LabelledDataset:
    arrays = _arrays(name)
    return LabelledDataset(
        name=name,
        train=Split(arrays["x_train"], arrays["y_train"].astype(np.int64)),
        test=Split(arrays["x_test"], arrays["y_test"].astype(np.int64)),
        classes=classes,
        train_index=arrays["train_index"].astype(np.int64),
        test_index=arrays["test_index"].astype(np.int64),
    )


def _mnist(name: str) -> LabelledDataset:
    return _labelled_images(name, DIGITS)


def _fashion_mnist(name: str) -> LabelledDataset:
    return _labelled_images(name, FASHION)


def _grocery(name: str) -> GroceryDataset:
    table = _table(name, "grocery_fruit14_96.csv")
    images = _tiles(name, "grocery_fruit14_96.jpg", 96)[: len(table["split"])]
    classes, fine = np.unique(table["finegrained_cat"], return_inverse=True)
    coarse_classes, coarse = np.unique(table["coarse_cat"], return_inverse=True)
    coarse_of = np.zeros(len(classes), dtype=np.int64)
    coarse_of[fine] = coarse
    in_train = np.array(table["split"]) == "train"
    return GroceryDataset(
        name=name,
        train=Split(images[in_train], fine[in_train].astype(np.int64)),
        test=Split(images[~in_train], fine[~in_train].astype(np.int64)),
        classes=tuple(classes.tolist()),
        coarse_classes=tuple(coarse_classes.tolist()),
        coarse_of=coarse_of,
    )


def _faces(name: str) -> FacesDataset:
    identities, shots = 200, 12
    table = _table(name, "faces_synth_200x12_64.csv")
    types = {
        "yaw": np.float32,
        "pitch": np.float32,
        "glasses": np.int64,
        "expression": np.str_,
        "male": np.float32,
        "age": np.float32,
    }
    tiles = _tiles(name, "faces_synth_200x12_64.jpg", 64)
    return FacesDataset(
        name=name,
        images=tiles.reshape(identities, shots, 64, 64, 3),
        metadata={
            column: np.array(table[column]).astype(dtype).reshape(identities, shots)
            for column, dtype in types.items()
        },
    )


def _headed(text: str, is_heading: Callable[[str], bool]) -> tuple[Document, ...]:
    """Cut a text at its heading lines."""
    documents: list[Document] = []
    title, lines = "", []
    for line in text.rstrip("\n").split("\n"):
        if is_heading(line):
            if title:
                documents.append(Document(title, "\n".join(lines)))
            title, lines = line.removeprefix("## "), []
        else:
            lines.append(line)
    documents.append(Document(title, "\n".join(lines)))
    return tuple(documents)


def _english_text(name: str) -> TextDataset:
    text = _text(_catalogue.bundled(name))
    return TextDataset(name, _headed(text, lambda line: line.startswith("## ")), "en")


def _sanguo(name: str) -> TextDataset:
    text = _text(_catalogue.bundled(name))
    return TextDataset(name, _headed(text, _is_chapter_heading), "zh")


def _is_chapter_heading(line: str) -> bool:
    """A heading is 第…回 with a Chinese number and the two verses of the chapter, one line."""
    number, found, rest = line.removeprefix("第").partition("回")
    return (
        line.startswith("第")
        and bool(found)
        and 0 < len(number) <= 5
        and set(number) <= set("〇零一二三四五六七八九十百")
        and bool(rest)
    )


def _tang(name: str) -> PoemDataset:
    return PoemDataset(name, tuple(Poem(*row) for row in _rows(name)))


def _tatoeba(name: str) -> PairDataset:
    return PairDataset(name, tuple(Pair(*row) for row in _rows(name)), "en", "fr")


def _hsk(name: str) -> SentenceDataset:
    sentences = (
        Sentence(key, int(level), chinese, tuple(words.split()), tuple(pinyin.split()), english)
        for key, level, chinese, words, pinyin, english in _rows(name)
    )
    return SentenceDataset(name, tuple(sentences))


def _sentiment(name: str) -> SentimentDataset:
    rows = (Rated(origin, float(rating), text) for origin, rating, text in _rows(name))
    return SentimentDataset(name, tuple(rows))


def _analogies(name: str) -> AnalogyDataset:
    sections: dict[str, list] = {}
    for line in _text(_catalogue.bundled(name)).splitlines():
        if line.startswith(": "):
            questions = sections.setdefault(line[2:], [])
        elif line:
            questions.append(tuple(line.split()))
    return AnalogyDataset(name, {title: tuple(rows) for title, rows in sections.items()})


def _glove(name: str) -> VectorsDataset:
    arrays = _arrays(name)
    vectors = arrays["q"].astype(np.float32) * arrays["scale"].astype(np.float32)
    return VectorsDataset(name, tuple(arrays["words"].tolist()), vectors)


def _dequantise(quantised: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Multiply int8 weights (out, …) by their scale per output channel (out,)."""
    per_channel = scale.reshape(-1, *[1] * (quantised.ndim - 1))
    return quantised.astype(np.float32) * per_channel.astype(np.float32)


def _mobilenet(name: str) -> WeightsDataset:
    state = {}
    for key, array in (arrays := _arrays(name)).items():
        if key.endswith("|q"):
            parameter = key.removesuffix("|q")
            state[parameter] = _dequantise(array, arrays[f"{parameter}|s"])
        elif not key.endswith("|s"):
            state[key] = array
    names = json.loads(_catalogue.bundled("imagenet_classes").read_text(encoding="utf-8"))
    return WeightsDataset(name, state, tuple(names))


# torchvision numbers VGG16's convolutions by their place in one long Sequential.
_VGG16_PLACES = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
}


def _vgg16(name: str) -> WeightsDataset:
    arrays = _arrays(name)
    state = {}
    for layer, place in _VGG16_PLACES.items():
        state[f"features.{place}.weight"] = _dequantise(
            arrays[f"{layer}.weight_q"], arrays[f"{layer}.scale"]
        )
        state[f"features.{place}.bias"] = arrays[f"{layer}.bias"]
    return WeightsDataset(name, state)


def _imagenet_classes(name: str) -> Dataset:
    names = json.loads(_catalogue.bundled(name).read_text(encoding="utf-8"))
    return WeightsDataset(name, {}, tuple(names))


def _sprites(name: str) -> SpriteDataset:
    sprites = []
    with zipfile.ZipFile(_catalogue.bundled(name)) as archive:
        for member in archive.namelist():
            label, _, code_point = member.removesuffix(".png").partition("_")
            image = _picture(io.BytesIO(archive.read(member)), "RGBA")
            sprites.append(Sprite(label, code_point, image))
    classes = tuple(dict.fromkeys(sprite.label for sprite in sprites))
    return SpriteDataset(name, tuple(sprites), classes)


def _photos(name: str) -> PhotoDataset:
    photos = []
    for file in _catalogue.entry(name).files:
        if file.name.endswith(".webp"):
            path = _catalogue.bundled(name, file.name)
            photos.append(Photo(path.stem, _picture(path, "RGB"), file.licence, file.attribution))
    return PhotoDataset(name, tuple(photos))


def _kernel_times(name: str) -> TimingsDataset:
    conditions = json.loads(_catalogue.bundled(name).read_text(encoding="utf-8"))
    rows = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        for row in conditions.pop("rows")
    ]
    return TimingsDataset(name, tuple(Timing(**row) for row in rows), conditions)


READERS: dict[str, Callable[[str], Dataset]] = {
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "grocery": _grocery,
    "faces": _faces,
    "sotu": _english_text,
    "enwiki": _english_text,
    "sanguo": _sanguo,
    "tang": _tang,
    "tatoeba": _tatoeba,
    "hsk": _hsk,
    "sentiment": _sentiment,
    "analogies": _analogies,
    "glove": _glove,
    "mobilenet_v2": _mobilenet,
    "vgg16": _vgg16,
    "imagenet_classes": _imagenet_classes,
    "sprites": _sprites,
    "images": _photos,
    "kernel_times": _kernel_times,
}
