"""scikit-learn's own small sets, in the same form as the bundled ones."""

import numpy as np

from dlnotes.data._loader import train_test_split
from dlnotes.data._records import LabelledDataset, Split

NAMES = ("digits", "iris", "wine", "breast_cancer", "diabetes")
TEST_SIZE = 0.25


def load_table(name: str) -> LabelledDataset:
    """Return one of scikit-learn's sets with a fixed split: a quarter for the test, seed 0.

    The split is stratified by class, and the same on every machine. Tables are float64
    (n, features) as scikit-learn has them; the digits are float32 images (n, 8, 8) divided by
    16, so that they lie in [0, 1].
    """
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    if name == "digits":
        x = (bunch.images / 16).astype(np.float32)
    else:
        x = np.asarray(bunch.data, dtype=np.float64)
    regression = not hasattr(bunch, "target_names")
    y = np.asarray(bunch.target, dtype=np.float64 if regression else np.int64)
    parts = train_test_split(
        x,
        y,
        np.arange(len(x)),
        test_size=TEST_SIZE,
        seed=0,
        stratify=None if regression else y,
    )
    x_train, x_test, y_train, y_test, train_index, test_index = parts
    return LabelledDataset(
        name=name,
        train=Split(x_train, y_train),
        test=Split(x_test, y_test),
        classes=() if regression else tuple(str(label) for label in bunch.target_names),
        feature_names=() if name == "digits" else tuple(map(str, bunch.feature_names)),
        train_index=train_index,
        test_index=test_index,
    )
