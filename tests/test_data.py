"""The data sets: bytes, records, splits, batches, resume, and downloads from loopback."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnotes
from dlnotes import data
from dlnotes.data import _bundled, _catalogue, _download, _full, _tables
from dlnotes.data._catalogue import Entry, Remote

ENTRIES = _catalogue.entries()
BUNDLED = [name for name, entry in ENTRIES.items() if entry.files]
ROOM = Path(_catalogue.__file__).parent


# --- The manifest -----------------------------------------------------------------------------


def test_every_bundled_file_is_in_the_manifest_and_right():
    listed = {file.name: file for entry in ENTRIES.values() for file in entry.files}
    found = {
        path.relative_to(_catalogue.FILES).as_posix()
        for path in _catalogue.FILES.rglob("*")
        if path.is_file()
    }
    assert set(listed) == found
    for name, file in listed.items():
        content = (_catalogue.FILES / name).read_bytes()
        assert len(content) == file.bytes, name
        assert hashlib.sha256(content).hexdigest() == file.sha256, name
    assert sum(file.bytes for file in listed.values()) <= 30_000_000


@pytest.mark.parametrize("name", ENTRIES)
def test_every_set_says_where_it_comes_from(name):
    entry = ENTRIES[name]
    for field in ("title", "licence", "source", "attribution", "citation"):
        assert getattr(entry, field).strip(), field
    sheet = entry.datasheet
    headings = re.findall(r"^## (.*)$", sheet, flags=re.M)
    wanted = [
        "Motivation",
        "Composition",
        "Collection",
        "Licence and attribution",
        "Known flaws",
        "What was checked",
    ]
    assert headings[: len(wanted)] == wanted
    # The data sheet and the manifest must not drift apart.
    for text in (entry.licence, entry.source, entry.attribution, entry.citation):
        assert text in sheet
    assert name in (ROOM / "LICENSES.md").read_text(encoding="utf-8")
    for remote in entry.full:
        assert remote.url in sheet
        assert re.fullmatch(r"[0-9a-f]{64}", remote.sha256)


def test_every_picture_has_its_own_credit():
    photos = data.load("images")
    sheet = photos.datasheet
    assert len(photos) == 21
    for photo in photos:
        assert photo.licence in ("public domain", "CC BY 4.0", "CC BY-SA 4.0")
        row = f"| `{photo.name}.webp` | {photo.licence} | {photo.attribution} |"
        assert row in sheet
        if photo.licence != "public domain":
            assert "https://commons.wikimedia.org/wiki/File:" in photo.attribution
    assert sum(photo.licence == "public domain" for photo in photos) == 8
    assert photos["NDP"].image.shape[2] == 3
    with pytest.raises(KeyError, match="no picture 'Mona'"):
        photos["Mona"]


def test_available_lists_every_set():
    table = data.available()
    assert [row[0] for row in table] == list(ENTRIES)
    text, html = repr(table), table._repr_html_()
    for name in ENTRIES:
        assert re.search(rf"^{name} ", text, flags=re.M)
        assert f"<td>{name}</td>" in html


def test_readers_and_manifest_agree():
    assert set(_bundled.READERS) == set(BUNDLED)
    assert set(_full.READERS) == {name for name, entry in ENTRIES.items() if entry.full}
    assert set(_tables.NAMES) == {
        name for name, entry in ENTRIES.items() if entry.kind == "scikit-learn"
    }


# --- The records ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shapes", "classes"),
    [
        ("mnist", ((10_000, 28, 28), (2_000, 28, 28)), 10),
        ("fashion_mnist", ((6_000, 28, 28), (1_000, 28, 28)), 10),
        ("grocery", ((696, 96, 96, 3), (649, 96, 96, 3)), 14),
    ],
)
def test_image_sets(name, shapes, classes):
    loaded = data.load(name)
    for split, shape in zip((loaded.train, loaded.test), shapes, strict=True):
        x, y = split
        assert x.shape == shape
        assert x.dtype == np.uint8
        assert x.flags.c_contiguous
        assert x.flags.writeable
        assert y.shape == shape[:1]
        assert y.dtype == np.int64
        assert set(y) == set(range(classes))
    assert len(loaded.classes) == classes
    assert repr(loaded.train) == f"Split(x=uint8 {shapes[0]}, y=int64 {shapes[0][:1]})"
    train = {image.tobytes() for image in loaded.train.x}
    assert not any(image.tobytes() in train for image in loaded.test.x)


@pytest.mark.parametrize(
    ("name", "train", "test"), [("mnist", 1000, 200), ("fashion_mnist", 600, 100)]
)
def test_image_sets_are_balanced_and_indexed(name, train, test):
    loaded = data.load(name)
    assert np.bincount(loaded.train.y).tolist() == [train] * 10
    assert np.bincount(loaded.test.y).tolist() == [test] * 10
    assert len(set(loaded.train_index.tolist())) == 10 * train
    assert loaded.train_index.max() < 60_000
    assert loaded.test_index.max() < 10_000


def test_a_loaded_set_is_frozen_and_fresh_each_time():
    first = data.load("fashion_mnist")
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.train = None
    first.train.x[:] = 0  # a reader's mistake must not reach the next load
    assert data.load("fashion_mnist").train.x.any()
    assert first.licence == "MIT"
    assert "arXiv:1708.07747" in first.citation
    assert first.datasheet.startswith("# Fashion-MNIST")
    assert repr(first).splitlines() == [
        "LabelledDataset",
        "  name: 'fashion_mnist'",
        "  train: Split(x=uint8 (6000, 28, 28), y=int64 (6000,))",
        "  test: Split(x=uint8 (1000, 28, 28), y=int64 (1000,))",
        f"  classes: {first.classes}",
        "  train_index: int64 (6000,)",
        "  test_index: int64 (1000,)",
        "  licence: MIT",
    ]


def test_grocery_has_two_levels_of_classes():
    loaded = data.load("grocery")
    names = {
        fine: loaded.coarse_classes[coarse]
        for fine, coarse in zip(loaded.classes, loaded.coarse_of, strict=True)
    }
    assert names["Royal-Gala"] == "Apple"
    assert names["Watermelon"] == "Melon"
    assert names["Anjou"] == "Pear"
    # The tiles and the labels are in step: green apples are greener than red ones.
    x, y = loaded.train
    green, red = (x[y == loaded.classes.index(n)] for n in ("Granny-Smith", "Red-Delicious"))
    excess = [float(np.mean(part[..., 1].astype(int) - part[..., 0])) for part in (green, red)]
    assert excess[0] > excess[1] + 20


def test_faces():
    loaded = data.load("faces")
    assert loaded.images.shape == (200, 12, 64, 64, 3)
    assert {key: value.shape for key, value in loaded.metadata.items()} == dict.fromkeys(
        ("yaw", "pitch", "glasses", "expression", "male", "age"), (200, 12)
    )
    # One person's age and build are the same in all shots, and the rows are one person each.
    for key in ("male", "age"):
        assert (loaded.metadata[key] == loaded.metadata[key][:, :1]).all()
    means = loaded.images.reshape(200, 12, -1).astype(np.float32)
    within = np.abs(means[:, 0] - means[:, 1]).mean()
    between = np.abs(means[:-1, 0] - means[1:, 0]).mean()
    assert within < between


def test_texts():
    speeches, articles, novel = (data.load(name) for name in ("sotu", "enwiki", "sanguo"))
    assert [len(each.documents) for each in (speeches, articles, novel)] == [123, 96, 120]
    assert speeches.documents[0].title == "1900 william_mc_kinley_r"
    assert speeches.documents[0].text.startswith("To the Senate and House of Representatives:")
    assert len(speeches.text.split()) == 890_815
    assert articles.documents[0].title.startswith("Anarchism (revision 716551092")
    assert novel.documents[0].title.startswith("第一回")
    assert novel.documents[119].title.startswith("第一百二十回")
    assert novel.language == "zh"
    assert "##" not in speeches.text[:100]


def test_poems_pairs_and_sentences():
    poems = data.load("tang").poems
    assert len(poems) == 14_479
    assert poems[3] == ("咏弓", "太宗皇帝", "上弦明月半，激箭流星远。落雁带书惊，啼猿映枝转。")
    pairs = data.load("tatoeba").pairs
    assert len(pairs) == len({pair.source for pair in pairs}) == 30_000
    assert max(len(pair.source.split()) for pair in pairs) == 8
    assert all(re.match(r"#\d+ \(.+\) & #\d+ \(.+\)$", pair.attribution) for pair in pairs)
    sentences = data.load("hsk").sentences
    assert len(sentences) == 4_354
    assert sentences[0].words == ("老师", "您", "好")
    assert sentences[0].pinyin == ("lǎo", "shī", "nín", "hǎo")
    assert {sentence.level for sentence in sentences} == {1, 2, 3, 4, 5, 6}
    for sentence in sentences:
        assert "".join(sentence.words) == re.sub(r"[^\w]", "", sentence.chinese)
    rated = data.load("sentiment").sentences
    assert len(rated) == 14_313
    assert {sentence.origin for sentence in rated} == {"movie", "product"}
    assert all(-4 <= sentence.rating <= 4 for sentence in rated)


def test_words():
    sections = data.load("analogies").sections
    assert sum(map(len, sections.values())) == 19_544
    assert len(sections) == 14
    assert all(len(question) == 4 for rows in sections.values() for question in rows)
    glove = data.load("glove")
    assert glove.vectors.dtype == np.float32
    assert glove.vectors.shape == (len(glove.words), 100)
    row = glove.index()
    unit = glove.vectors / np.linalg.norm(glove.vectors, axis=1, keepdims=True)
    closest = unit @ (unit[row["king"]] - unit[row["man"]] + unit[row["woman"]])
    for given_word in ("king", "man", "woman"):
        closest[row[given_word]] = -np.inf
    assert glove.words[int(closest.argmax())] == "queen"


def test_weights_are_multiplied_out():
    mobilenet = data.load("mobilenet_v2")
    learned = [k for k in mobilenet.state_dict if "running" not in k]
    assert sum(mobilenet.state_dict[k].size for k in learned) == 3_504_872
    assert all(array.dtype == np.float32 for array in mobilenet.state_dict.values())
    assert mobilenet.classes[281] == "tabby"
    stored = _bundled._arrays("mobilenet_v2")
    q, scale = stored["classifier.1.weight|q"], stored["classifier.1.weight|s"]
    np.testing.assert_array_equal(mobilenet.state_dict["classifier.1.weight"][7], q[7] * scale[7])
    vgg = data.load("vgg16").state_dict
    assert list(vgg)[:2] == ["features.0.weight", "features.0.bias"]
    assert vgg["features.17.weight"].shape == (512, 256, 3, 3)
    first = vgg["features.0.weight"][0, 0, 0]  # the values that DATA's source gives, rounded
    np.testing.assert_allclose(first, [-0.5537, 0.1427, 0.5290], atol=3.1e-3)
    assert len(data.load("imagenet_classes").classes) == 1000


def test_sprites_are_transparent_outside():
    loaded = data.load("sprites")
    assert len(loaded.sprites) == 18
    assert len(loaded.classes) == 10
    for sprite in loaded.sprites:
        assert sprite.image.shape == (128, 128, 4)
        assert sprite.image[0, 0, 3] == 0
        assert sprite.image[..., 3].max() == 255


@pytest.mark.parametrize("name", _tables.NAMES)
def test_tables_hold_what_sklearn_has(name):
    import sklearn.datasets

    bunch = getattr(sklearn.datasets, f"load_{name}")()
    loaded = data.load(name)
    x = bunch.images / 16 if name == "digits" else bunch.data
    for split, index in ((loaded.train, loaded.train_index), (loaded.test, loaded.test_index)):
        np.testing.assert_array_equal(split.x, x[index].astype(split.x.dtype))
        np.testing.assert_array_equal(split.y, bunch.target[index])
    both = np.concatenate([loaded.train_index, loaded.test_index])
    assert sorted(both.tolist()) == list(range(len(x)))
    if loaded.classes:
        shares = [np.bincount(split.y) / len(split.y) for split in (loaded.train, loaded.test)]
        np.testing.assert_allclose(*shares, atol=0.03)
        assert len(loaded.classes) == len(shares[0])
    else:
        assert loaded.train.y.dtype == np.float64


# --- Damage and bad names ---------------------------------------------------------------------


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """A copy of one bundled file, in place of all the others; nothing verified yet."""
    target = tmp_path / "imagenet_1000_classes.json"
    target.write_bytes(data.path("imagenet_classes").read_bytes())
    monkeypatch.setattr(_catalogue, "FILES", tmp_path)
    _catalogue._verified.cache_clear()
    yield target
    _catalogue._verified.cache_clear()


def test_a_damaged_file_is_refused(own_files):
    content = bytearray(own_files.read_bytes())
    content[100] ^= 1
    own_files.write_bytes(content)
    expected = ENTRIES["imagenet_classes"].files[0].sha256
    found = hashlib.sha256(content).hexdigest()
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(data.CorruptFileError) as caught:
            data.load("imagenet_classes")
        for part in (str(own_files), expected, found):
            assert part in str(caught.value)


def test_a_missing_file_says_how_to_get_it_back(own_files):
    own_files.unlink()
    with pytest.raises(FileNotFoundError, match=r"imagenet_1000_classes.*install dlnotes again"):
        data.path("imagenet_classes")


def test_a_file_is_hashed_once_per_process(own_files, monkeypatch):
    calls = []
    sha256 = _catalogue.sha256
    monkeypatch.setattr(_catalogue, "sha256", lambda path: calls.append(path) or sha256(path))
    data.load("imagenet_classes")
    data.load("imagenet_classes")
    assert data.path("imagenet_classes") == own_files
    assert calls == [own_files]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: data.load("minst"), r"name must be one of mnist, .*got 'minst'"),
        (lambda: data.load("cifar10"), r"no bundled form.*full=True.*170 MB"),
        (lambda: data.load("iris", full=True), r"'iris' has no full-scale form.*mnist"),
        (lambda: data.path("iris"), "scikit-learn"),
        (lambda: data.path("cifar10"), "full=True"),
        (lambda: data.path("grocery"), "several files.*grocery_fruit14_96.csv"),
        (lambda: data.path("mnist", "mnist.npz"), "file must be one of mnist_12k.npz"),
        (lambda: data.path("images", "../manifest.json"), "file must be one of"),
    ],
)
def test_bad_names(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_types_are_checked_where_nothing_else_checks_them():
    """In a plain process, without the tests' annotation checker."""
    script = """
import numpy as np
from dlnotes import data
good = data.TensorDataset(np.zeros(3))
for call in (
    lambda: data.load(3),
    lambda: data.load("mnist", full=1),
    lambda: data.TensorDataset([1, 2]),
    lambda: data.Subset(good, [0.5]),
    lambda: data.DataLoader(iter([])),
    lambda: data.DataLoader((np.zeros(3), np.zeros(3))),
    lambda: data.DataLoader(good, 2.0),
    lambda: data.DataLoader(good, shuffle=1),
    lambda: data.DataLoader(good, generator=0),
    lambda: data.train_test_split(np.zeros(3), test_size="a"),
    lambda: data.images_to_float(np.zeros(3)),
):
    try:
        call()
    except TypeError as error:
        print(error)
    else:
        print("nothing raised")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    beginnings = [line.split(" must")[0] for line in run.stdout.splitlines()]
    assert beginnings == [
        "name",
        "full",
        "array 0",
        "indices",
        "dataset",
        "dataset",
        "batch_size",
        "shuffle",
        "generator",
        "test_size",
        "images",
    ]


def test_the_default_scale_is_light_and_needs_no_network():
    script = """
import socket, sys
def forbidden(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = forbidden
socket.getaddrinfo = forbidden
from dlnotes import data
heavy = {"torch", "sklearn", "PIL", "matplotlib", "pandas", "pooch", "requests"}
print(sorted(heavy & set(sys.modules)))
for row in data.available():
    if row[0] != "cifar10":
        data.load(row[0])
"""
    environment = {**os.environ, "DLNOTES_DATA": "/nonexistent/dlnotes"}
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert run.stdout.strip() == "[]"


# --- Scale and pixels -------------------------------------------------------------------------


def test_at_scale(monkeypatch):
    monkeypatch.delenv("DLNOTES_SCALE", raising=False)
    assert data.at_scale(3, 60) == 3
    monkeypatch.setenv("DLNOTES_SCALE", "full")
    assert data.at_scale(3, 60) == 60
    monkeypatch.setenv("DLNOTES_SCALE", "ful")
    with pytest.raises(ValueError, match="DLNOTES_SCALE must be one of default, full; got 'ful'"):
        data.at_scale(3, 60)


@pytest.mark.parametrize("shape", [(0, 28, 28), (1, 1), (2, 3, 4, 3)])
def test_images_to_float(shape):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)[:, ::-1]
    floats = data.images_to_float(images)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, (images / 255).astype(np.float32))
    all_values = data.images_to_float(np.arange(256, dtype=np.uint8))
    assert (all_values[0], all_values[-1]) == (0, 1)


# --- Splits -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 5), st.booleans(), st.integers(1, 3)
)
def test_train_test_split_is_a_partition(n, test_size, seed, stratified, classes):
    tests = int(np.ceil(n * test_size))
    labels = np.arange(n) % classes
    if stratified and (n < 2 * classes or min(tests, n - tests) < classes):
        return
    if not 0 < tests < n:
        return
    x = np.arange(n)
    stratify = labels if stratified else None
    a, b, c, d = data.train_test_split(x, 10 * x, test_size=test_size, seed=seed, stratify=stratify)
    assert len(b) == tests
    assert sorted([*a, *b]) == list(range(n))
    np.testing.assert_array_equal(10 * a, c)
    np.testing.assert_array_equal(10 * b, d)
    again = data.train_test_split(x, test_size=test_size, seed=seed, stratify=stratify)
    np.testing.assert_array_equal(again[0], a)
    if stratified:
        share = np.bincount(labels, minlength=classes) * tests / n
        assert np.all(np.abs(np.bincount(labels[b], minlength=classes) - share) < 1)


def test_train_test_split_draws_from_dlnotes_when_asked():
    dlnotes.manual_seed(3)
    first = data.train_test_split(np.arange(50), seed=None)
    second = data.train_test_split(np.arange(50), seed=None)
    assert first[1].tolist() != second[1].tolist()
    dlnotes.manual_seed(3)
    assert data.train_test_split(np.arange(50), seed=None)[1].tolist() == first[1].tolist()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: data.train_test_split(), "one array or more"),
        (lambda: data.train_test_split(np.zeros(3), np.zeros(4)), r"lengths \[3, 4\]"),
        (lambda: data.train_test_split(np.zeros(3), test_size=1.0), r"in \(0, 1\), got 1.0"),
        (lambda: data.train_test_split(np.zeros(3), test_size=3), "leaves 3 of 3"),
        (lambda: data.train_test_split(np.zeros(3), test_size=np.nan), r"\(0, 1\)"),
        (
            lambda: data.train_test_split(np.zeros(4), stratify=np.array([0, 0, 0, 1])),
            "class .*1.* has one",
        ),
        (
            lambda: data.train_test_split(np.zeros(8), test_size=1, stratify=np.arange(8) % 2),
            "each of the 2 classes",
        ),
        (lambda: data.train_test_split(np.zeros(4), stratify=np.zeros(3)), r"shape \(4,\)"),
        (lambda: data.random_split(np.zeros(5), [2, 2]), "add up to the 5 samples"),
        (lambda: data.random_split(np.zeros(5), [6, -1]), "add up"),
        (lambda: data.random_split(np.zeros(5), [0.5, 0.4]), "add up to 1"),
        (lambda: data.random_split(np.zeros(5), [1.5, -0.5]), r"in \[0, 1\]"),
        (lambda: data.Subset(np.zeros(5), [5]), "below the 5 samples"),
        (lambda: data.TensorDataset(), "one array or more"),
        (lambda: data.TensorDataset(np.zeros(2), np.zeros(3)), "equally long"),
        (lambda: data.TensorDataset(np.array(3.0)), "one axis"),
        (lambda: data.DataLoader(np.zeros(5), batch_size=0), "batch_size must be at least 1"),
    ],
)
def test_bad_splits(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@settings(deadline=None)
@given(st.integers(0, 40), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_random_split_has_torchs_sizes(n, weights):
    fractions = [weight / sum(weights) for weight in weights]
    if sum(fractions) > 1:  # rounding up: torch refuses it
        return
    ours = data.random_split(data.TensorDataset(np.arange(n)), fractions)
    if n:  # torch warns about empty parts
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = torch.utils.data.random_split(range(n), fractions)
        assert [len(part) for part in ours] == [len(part) for part in theirs]
    drawn = [int(sample[0]) for part in ours for sample in (part[i] for i in range(len(part)))]
    assert sorted(drawn) == list(range(n))


# --- Batches ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(1, 12), st.booleans())
def test_batches_equal_torchs(n, batch_size, drop_last):
    x = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    y = np.arange(n)
    ours = data.DataLoader(data.TensorDataset(x, y), batch_size, drop_last=drop_last)
    theirs = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y)),
        batch_size=batch_size,
        drop_last=drop_last,
    )
    assert len(ours) == len(theirs)
    batches = list(ours)
    assert len(batches) == len(theirs)
    for batch, reference in zip(batches, theirs, strict=True):
        assert isinstance(batch, tuple)
        for part, expected in zip(batch, reference, strict=True):
            np.testing.assert_array_equal(part, expected.numpy())
            assert part.dtype == expected.numpy().dtype


def test_any_indexable_data_set_is_stacked():
    class Squares:
        def __len__(self):
            return 5

        def __getitem__(self, index):
            if index >= 5:
                raise IndexError(index)
            return np.full(2, index, np.float32), index**2

    (x, y), *_rest, last = data.DataLoader(Squares(), batch_size=2)
    assert x.tolist() == [[0, 0], [1, 1]]
    assert x.dtype == np.float32
    assert y.tolist() == [0, 1]
    assert last[1].tolist() == [16]
    subset = data.Subset(Squares(), [4, 1])
    assert next(iter(data.DataLoader(subset, batch_size=2)))[1].tolist() == [16, 1]
    nested = data.Subset(data.Subset(data.TensorDataset(np.arange(9)), [8, 7, 6]), [2, -3])
    assert next(iter(data.DataLoader(nested, batch_size=2)))[0].tolist() == [6, 8]


def order(loader):
    return [int(value) for (batch,) in loader for value in batch]


def make_loader(n=23, batch_size=4, **arguments):
    return data.DataLoader(data.TensorDataset(np.arange(n)), batch_size, **arguments)


def test_shuffling_follows_the_seed_and_nothing_else():
    loader = make_loader(shuffle=True)
    dlnotes.manual_seed(5)
    first, second = order(loader), order(loader)
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    np.random.seed(99)  # NumPy's global state plays no part
    torch.manual_seed(99)
    dlnotes.manual_seed(5)
    assert [order(loader), order(loader)] == [first, second]


def test_without_shuffling_nothing_is_drawn():
    dlnotes.manual_seed(0)
    before = dlnotes.random.get_state()
    assert order(make_loader()) == list(range(23))
    assert dlnotes.random.get_state() == before


def test_one_permutation_is_drawn_per_pass_and_at_its_start():
    dlnotes.manual_seed(0)
    expected = np.random.default_rng(0)
    expected.permutation(23)
    iter(make_loader(shuffle=True))
    assert dlnotes.random.get_state() == expected.bit_generator.state


def test_an_own_generator_leaves_dlnotes_alone():
    dlnotes.manual_seed(0)
    before = dlnotes.random.get_state()
    orders = [
        order(make_loader(shuffle=True, generator=np.random.default_rng(7))) for _ in range(2)
    ]
    assert orders[0] == orders[1] != list(range(23))
    assert dlnotes.random.get_state() == before


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 3, 5, 6, 8])
def test_a_pass_resumes_at_any_batch(own, shuffle, stop):
    """Two passes with other draws in between, cut after `stop` batches, go on bit for bit."""

    def start():
        dlnotes.manual_seed(1)
        return make_loader(shuffle=shuffle, generator=np.random.default_rng(2) if own else None)

    def batches(loader, passes):
        for _ in range(passes):
            for (batch,) in loader:
                dlnotes.random.generator().normal()  # as dropout would
                yield batch.tolist()

    uninterrupted = list(batches(start(), 2))
    loader = start()
    running = batches(loader, 2)
    seen = [next(running) for _ in range(stop)]
    saved = json.loads(
        json.dumps({"loader": loader.state_dict(), "random": dlnotes.random.get_state()})
    )
    # Another process: other seeds, other state, until the checkpoint is read.
    dlnotes.manual_seed(77)
    loader = make_loader(shuffle=shuffle, generator=np.random.default_rng(78) if own else None)
    order(loader)
    loader.load_state_dict(saved["loader"])
    dlnotes.random.set_state(saved["random"])
    passes_left = 2 if stop == 0 else 2 - (stop - 1) // 6
    seen += batches(loader, passes_left)
    assert seen == uninterrupted


def test_a_resumed_pass_can_be_saved_again():
    dlnotes.manual_seed(1)
    whole = [batch.tolist() for (batch,) in make_loader(shuffle=True)]
    dlnotes.manual_seed(1)
    state, seen = None, []
    for _ in range(len(whole)):
        loader = make_loader(shuffle=True)
        if state is not None:
            loader.load_state_dict(state)
            assert loader.state_dict() == state
        seen.append(next(iter(loader))[0].tolist())
        state = loader.state_dict()
        dlnotes.random.generator().normal(size=3)
    assert seen == whole


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "state lacks generator, start, yielded"),
        ({"start": None, "yielded": 7, "generator": None}, "7 batches.*has 6"),
        ({"start": None, "yielded": 0, "generator": {}}, "own generator"),
    ],
)
def test_a_foreign_state_is_refused(state, words):
    with pytest.raises(ValueError, match=words):
        make_loader().load_state_dict(state)


# --- Downloads, from a server on loopback -----------------------------------------------------


class Server:
    """Serves `files`; can cut an answer short, ignore Range, or answer with a status."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.sent = 0
        self.cut_after: list[int] = []  # one entry is used up by each request
        self.statuses: list[int] = []
        self.ranges = True
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        body = self.files[handler.path]
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        handler.send_response(206 if wanted and self.ranges else 200)
        if wanted and self.ranges:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        part = body[start:]
        if self.cut_after:
            part = part[: self.cut_after.pop(0)]
        self.sent += len(part)
        handler.wfile.write(part)
        handler.close_connection = True

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


BODY = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("DLNOTES_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_download, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(_download, "_verified", set())
    running = Server()
    running.files["/body"] = BODY
    yield running
    running.close()


def remote(server, content=BODY, path="/body", name="set/file.bin", **changes):
    fields = {
        "name": name,
        "url": server.url + path,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return Remote(**{**fields, **changes})


def leftovers(tmp_path):
    """What lies in the cache, the empty lock files left out."""
    found = (tmp_path / "cache").rglob("*")
    return sorted(path.name for path in found if path.is_file() and path.suffix != ".lock")


def test_a_file_is_downloaded_once(server, tmp_path, monkeypatch):
    file = _download.fetch(remote(server))
    assert file == tmp_path / "cache" / "set" / "file.bin"
    assert file.read_bytes() == BODY
    assert _download.fetch(remote(server)) == file
    monkeypatch.setattr(_download, "_verified", set())  # another process
    assert _download.fetch(remote(server)) == file
    assert server.requests == [("/body", None)]
    assert leftovers(tmp_path) == ["file.bin"]


def test_an_interrupted_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.cut_after = [100_000, 50_000]
    assert _download.fetch(remote(server)).read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert server.sent == len(BODY)  # nothing was sent twice
    assert leftovers(tmp_path) == ["file.bin"]


def test_a_killed_download_goes_on_in_the_next_process(server, tmp_path):
    server.cut_after = [70_000, 0, 0, 0]
    with pytest.raises(data.DownloadError, match="70,000 bytes are kept"):
        _download.fetch(remote(server))
    assert leftovers(tmp_path) == ["file.bin.part"]
    server.requests.clear()
    assert _download.fetch(remote(server)).read_bytes() == BODY
    assert server.requests == [("/body", "bytes=70000-")]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    server.cut_after = [100_000]
    assert _download.fetch(remote(server)).read_bytes() == BODY
    assert len(server.requests) == 2
    assert leftovers(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("size", [1000, len(BODY), len(BODY) + 5])
def test_a_partial_file_of_something_else_is_given_up(server, tmp_path, size):
    folder = tmp_path / "cache" / "set"
    folder.mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(b"?" * size)
    assert _download.fetch(remote(server)).read_bytes() == BODY
    assert leftovers(tmp_path) == ["file.bin"]


def test_a_refused_range_starts_again(server, tmp_path):
    folder = tmp_path / "cache" / "set"
    folder.mkdir(parents=True)
    (folder / "file.bin.part").write_bytes(BODY[:1000])
    server.statuses = [416]
    assert _download.fetch(remote(server)).read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]


def test_a_wrong_checksum_is_rejected_and_nothing_is_left(server, tmp_path):
    wrong = bytes([BODY[0] ^ 1]) + BODY[1:]
    server.files["/body"] = wrong
    with pytest.raises(data.CorruptFileError) as caught:
        _download.fetch(remote(server))
    message = str(caught.value)
    for content in (BODY, wrong):
        assert hashlib.sha256(content).hexdigest() in message
    assert "set/file.bin" in message
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("content", [BODY[:-1], BODY + b"more", b""])
def test_a_file_of_the_wrong_size_never_arrives(server, tmp_path, content):
    server.files["/body"] = content
    with pytest.raises(data.DownloadError, match=r"could not download set/file\.bin"):
        _download.fetch(remote(server))
    assert "file.bin" not in leftovers(tmp_path)


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path):
    folder = tmp_path / "cache" / "set"
    folder.mkdir(parents=True)
    (folder / "file.bin").write_bytes(BODY[:-1] + b"?")
    assert _download.fetch(remote(server)).read_bytes() == BODY


def test_a_busy_server_is_asked_again(server):
    server.statuses = [503, 429]
    assert _download.fetch(remote(server)).read_bytes() == BODY
    assert len(server.requests) == 3


def test_a_missing_file_is_not_asked_for_again(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(data.DownloadError, match="answered with status 404"):
        _download.fetch(remote(server))
    assert len(server.requests) == 1
    assert leftovers(tmp_path) == []


def test_offline_says_what_to_do(server, tmp_path, monkeypatch):
    entry = ENTRIES["mnist"]
    server.close()
    offline = tuple(
        dataclasses.replace(each, url=f"{server.url}/{each.name}") for each in entry.full
    )
    changed = {**ENTRIES, "mnist": dataclasses.replace(entry, full=offline)}
    monkeypatch.setattr(_catalogue, "entries", lambda: changed)
    with pytest.raises(data.DownloadError) as caught:
        data.load("mnist", full=True)
    message = str(caught.value)
    for words in (
        "could not download mnist/train-images-idx3-ubyte.gz (9.9 MB)",
        "the connection was refused",
        "the default scale uses the bundled data and no network",
        "run again",
        str(tmp_path / "cache" / "mnist"),
        "DLNOTES_DATA",
    ):
        assert words in message
    assert len(data.load("mnist").train.x) == 10_000  # the default scale goes on working


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX users")
def test_a_read_only_cache(server, monkeypatch):
    folder = Path(tempfile.mkdtemp(prefix="dlnotes-test-"))
    monkeypatch.setenv("DLNOTES_DATA", str(folder))
    (folder / "set").mkdir()
    (folder / "set" / "there.bin").write_bytes(BODY)
    folder.chmod(0o555)
    (folder / "set").chmod(0o555)
    root = os.geteuid() == 0  # root may write everywhere: be nobody for a moment
    try:
        if root:
            os.seteuid(65534)
        # What is there is used, what is not cannot be fetched.
        there = _download.fetch(remote(server, name="set/there.bin"))
        assert there.read_bytes() == BODY
        for name in ("set/file.bin", "other/file.bin"):
            with pytest.raises(PermissionError, match=r"cannot be written.*DLNOTES_DATA"):
                _download.fetch(remote(server, name=name))
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        (folder / "set").chmod(0o755)
        (folder / "set" / "there.bin").unlink()
        (folder / "set").rmdir()
        folder.rmdir()
    assert server.requests == []


def test_a_cache_folder_that_is_a_file(server, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file")
    monkeypatch.setenv("DLNOTES_DATA", str(tmp_path / "occupied"))
    with pytest.raises(PermissionError, match=r"occupied.*cannot be written"):
        _download.fetch(remote(server))


def test_two_at_once_download_once(server):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(_download.fetch(remote(server))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(server.requests) == 1


def test_progress_is_shown_when_it_can_be_seen(server, monkeypatch, capsys):
    monkeypatch.setattr(_download, "_shows_progress", lambda: True)
    server.cut_after = [100_000]
    _download.fetch(remote(server))
    shown = capsys.readouterr().err
    assert "set/file.bin" in shown
    assert "100%" in shown
    # The second bar starts where the first stopped.
    assert "33%" in shown
    monkeypatch.undo()
    monkeypatch.setenv("DLNOTES_PROGRESS", "0")
    assert not _download._shows_progress()


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def serve(server, monkeypatch, name, files, **changes):
    """Let `load(name, full=True)` download these files from the test's server."""
    remotes = []
    for file, content in files.items():
        server.files[f"/{file}"] = content
        remotes.append(remote(server, content, f"/{file}", f"{name}/{file}", **changes))
    entry = dataclasses.replace(ENTRIES[name], full=tuple(remotes))
    monkeypatch.setattr(_catalogue, "entries", lambda: {**ENTRIES, name: entry})


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_full_mnist_is_read(server, monkeypatch, name):
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, shape).astype(np.uint8)
        for shape in ((5, 28, 28), (5,), (3, 28, 28), (3,))
    ]
    names = [Path(each.name).name for each in ENTRIES[name].full]
    files = {file: gzip.compress(idx(array)) for file, array in zip(names, arrays, strict=True)}
    serve(server, monkeypatch, name, files)
    loaded = data.load(name, full=True)
    got = (*loaded.train, *loaded.test)
    for array, expected in zip(got, arrays, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert got[1].dtype == np.int64
    assert got[0].flags.writeable
    assert loaded.classes == data.load(name).classes
    data.load(name, full=True)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("content", "changes", "words"),
    [
        (idx(np.zeros((2, 3), np.uint8))[:-1], {}, "does not hold"),
        (b"\x00\x00\x0d\x01" + bytes(8), {}, "not an IDX file of bytes"),
        (idx(np.zeros(2, np.uint8)), {"sha256_unpacked": "0" * 64}, "content .* is damaged"),
    ],
)
def test_a_malformed_idx_file_is_refused(server, monkeypatch, content, changes, words):
    files = {Path(each.name).name: gzip.compress(content) for each in ENTRIES["mnist"].full}
    serve(server, monkeypatch, "mnist", files, **changes)
    with pytest.raises(data.CorruptFileError, match=words):
        data.load("mnist", full=True)


def test_full_cifar10_is_read(server, monkeypatch):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    batches = {}
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file in [*(f"data_batch_{i}.bin" for i in (2, 1, 3, 4, 5)), "test_batch.bin"]:
            batches[file] = rng.integers(0, 256, (2, 3073)).astype(np.uint8)
            batches[file][:, 0] %= 10
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
            content = batches[file].tobytes()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    serve(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": buffer.getvalue()})
    loaded = data.load("cifar10", full=True)
    assert loaded.train.x.shape == (10, 32, 32, 3)
    assert loaded.test.x.shape == (2, 32, 32, 3)
    record = batches["data_batch_1.bin"][1]
    assert loaded.train.y[1] == record[0]
    # Stored plane by plane, red first; given pixel by pixel.
    assert loaded.train.x[1, 4, 7].tolist() == [record[1 + c * 1024 + 4 * 32 + 7] for c in range(3)]


def test_the_full_scale_entries_are_plausible():
    assert isinstance(ENTRIES["mnist"], Entry)
    for name, total in (("mnist", 11.6e6), ("fashion_mnist", 30.9e6), ("cifar10", 170.1e6)):
        assert ENTRIES[name].full_bytes == pytest.approx(total, rel=0.01)
        for each in ENTRIES[name].full:
            assert each.url.startswith("https://")
            assert each.name.startswith(f"{name}/")
            assert each.url.endswith(each.name.removeprefix(f"{name}/"))
