"""Augmentation: each transform does what it says, per image, from its own generator."""

import core_helpers as h
import numpy as np
import pytest
import scipy.ndimage

import dlnotes
from dlnotes import data
from dlnotes.data import transforms as T


def images(n=40, channels=(3,), size=(8, 7), dtype=np.float32, seed=0):
    return np.random.default_rng(seed).random((n, *channels, *size)).astype(dtype)


EVERY = {
    "flip": T.RandomHorizontalFlip(),
    "vertical flip": T.RandomVerticalFlip(),
    "crop": T.RandomCrop((5, 4), padding=2, padding_mode="reflect"),
    "affine": T.RandomAffine(20, (0.1, 0.2), (0.8, 1.2), 10),
    "rotation": T.RandomRotation(30),
    "noise": T.GaussianNoise(sigma=0.2),
    "erasing": T.RandomErasing(p=0.7),
    "jitter": T.ColorJitter(0.3, 0.3),
    "several": T.Compose([T.RandomHorizontalFlip(), T.GaussianNoise(sigma=0.1)]),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_new_images_from_the_seed_alone(name, channels, dtype):
    x = images(channels=channels, dtype=dtype)
    x.setflags(write=False)
    before = x.copy()
    results = []
    for seed in (1, 1, 2):
        dlnotes.manual_seed(seed)
        results.append(EVERY[name](x))
    assert all(y.dtype == dtype and y.shape[:-2] == x.shape[:-2] for y in results)
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(results[0], x)
    assert len(EVERY[name](x[:0])) == 0
    assert EVERY[name](x[:1]).shape == results[0][:1].shape


def test_generator_of_its_own():
    x = images()
    first, second = (T.GaussianNoise(generator=np.random.default_rng(5))(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    state = dlnotes.random.get_state()
    T.RandomAffine(10, generator=np.random.default_rng(5))(x)
    assert dlnotes.random.get_state() == state


def test_flips_are_flips_of_about_half():
    x = images(400)
    y = T.RandomHorizontalFlip()(x)
    flipped = (y == x[..., ::-1]).all(axis=(1, 2, 3))
    kept = (y == x).all(axis=(1, 2, 3))
    assert (flipped ^ kept).all()
    assert 150 < flipped.sum() < 250
    np.testing.assert_array_equal(T.RandomVerticalFlip(p=1)(x), x[..., ::-1, :])
    np.testing.assert_array_equal(T.RandomVerticalFlip(p=0)(x), x)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_a_crop_is_a_window_and_all_windows_occur(mode):
    x = images(300, channels=(2,), size=(4, 5))
    y = T.RandomCrop(4, padding=1, padding_mode=mode)(x)
    assert y.shape == (300, 2, 4, 4)
    places = set()
    for image, crop in zip(x, y, strict=True):
        padded = np.pad(image, [(0, 0), (1, 1), (1, 1)], mode)
        found = [
            (i, j) for i in range(3) for j in range(4)
            if (padded[:, i : i + 4, j : j + 4] == crop).all()
        ]  # fmt: skip
        assert found
        places.update(found)
    assert len(places) == 12


def test_affine_without_change_is_the_image():
    x = images(dtype=np.float64)
    np.testing.assert_allclose(T.RandomAffine(0)(x), x, atol=1e-12)


class _Fixed:
    """Stands for a generator: uniform returns its upper bound."""

    def uniform(self, low, high, size):
        return np.broadcast_to(np.asarray(high, float), size)


def changed(transform, x):
    return transform._changed(x, _Fixed())


def test_rotation_is_counter_clockwise():
    x = images(2, size=(5, 5), dtype=np.float64)
    np.testing.assert_allclose(
        changed(T.RandomRotation(90), x), np.rot90(x, axes=(-2, -1)), atol=1e-9
    )
    expected = scipy.ndimage.rotate(x[0, 0], 30, reshape=False, order=1, mode="constant")
    np.testing.assert_allclose(changed(T.RandomRotation(30), x)[0, 0], expected, atol=1e-9)


def test_shift_scale_and_shear():
    x = np.zeros((1, 9, 9))
    x[0, 4, 4] = 1
    moved = changed(T.RandomAffine(0, translate=(1 / 9, 3 / 9)), x)
    assert np.argwhere(moved[0] > 0.99).tolist() == [[7, 5]]  # down by 3, right by 1
    x[0, 4, 6] = 1
    larger = changed(T.RandomAffine(0, scale=(1, 2)), x)
    assert larger[0, 4, 8] == pytest.approx(1)  # twice as far from the middle
    x = np.zeros((1, 9, 9))
    x[0, 6, 4] = 1
    sheared = changed(T.RandomAffine(0, shear=45), x)
    assert sheared[0, 6, 6] == pytest.approx(1)  # two rows below the middle: two columns


def test_noise_has_its_mean_and_deviation():
    x = np.full((50, 20, 20), 0.5, np.float32)
    noise = T.GaussianNoise(mean=0.1, sigma=0.05, clip=False)(x) - x
    assert abs(noise.mean() - 0.1) < 2e-3
    assert abs(noise.std() - 0.05) < 2e-3
    clipped = T.GaussianNoise(sigma=5)(x)
    assert clipped.min() == 0
    assert clipped.max() == 1


def test_erasing_fills_a_rectangle_of_the_right_size():
    x = np.ones((500, 30, 30), np.float32)
    y = T.RandomErasing(p=1, scale=(0.1, 0.2), ratio=(0.5, 2), value=-1)(x)
    assert set(np.unique(y)) == {-1, 1}
    for image in y:
        rows, columns = (np.flatnonzero((image < 0).any(axis=axis)) for axis in (1, 0))
        assert (image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] < 0).all()
    assert 0.05 < (y < 0).mean() < 0.2
    assert (T.RandomErasing(p=0)(x) == x).all()


def test_jitter_stays_in_range_and_contrast_keeps_the_mean():
    x = images(size=(20, 20))
    y = T.ColorJitter(1, 1)(x)
    assert y.min() >= 0
    assert y.max() <= 1
    middle = 0.5 + 0.2 * (x - 0.5)  # far from the borders: nothing is clipped
    z = T.ColorJitter(contrast=0.9)(middle)
    np.testing.assert_allclose(z.mean(axis=(1, 2, 3)), middle.mean(axis=(1, 2, 3)), atol=1e-5)
    assert np.ptp(z.std(axis=(1, 2, 3))) > 0.02


def test_mixup_blends_images_and_targets_alike():
    x = images(6, dtype=np.float64)
    y = np.array([0, 1, 2, 3, 4, 5])
    mixed, target = T.MixUp(num_classes=6, alpha=0.4, generator=np.random.default_rng(3))(x, y)
    np.testing.assert_allclose(target.sum(axis=1), 1)
    # A target holds, for each image, the shares of the two images that it was made of.
    np.testing.assert_allclose(mixed, np.tensordot(target, x, axes=1))
    single = T.MixUp(num_classes=6)(x.astype(np.float32), y)[1]
    assert single.dtype == np.float32


def test_cutmix_blends_the_target_by_the_area():
    x = np.arange(6.0)[:, None, None, None] * np.ones((6, 2, 10, 12))
    y = np.arange(6)
    for seed in range(20):
        mixed, target = T.CutMix(6, generator=np.random.default_rng(seed))(x, y)
        for image, row in zip(mixed, target, strict=True):
            for k in range(6):
                assert (image == k).mean() == pytest.approx(row[k])


def test_transformed_data_set_in_a_loader():
    x, y = images(10), np.arange(10)
    plain = data.TensorDataset(x, y)
    loader = data.DataLoader(T.Transformed(plain, T.RandomVerticalFlip(p=1)), batch_size=4)
    batches = list(loader)
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), x[..., ::-1, :])
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), y)
    single = T.Transformed(plain, T.RandomVerticalFlip(p=1))[3]
    np.testing.assert_array_equal(single[0], x[3, ..., ::-1, :])
    mixing = T.Transformed(plain, T.Compose([T.RandomHorizontalFlip(), T.MixUp(10)]))
    images_, targets = next(iter(data.DataLoader(mixing, batch_size=10)))
    assert images_.shape == x.shape
    assert targets.shape == (10, 10)
    assert len(mixing) == 10


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: T.RandomHorizontalFlip(p=1.5), ValueError, "p must be"),
        (lambda: T.RandomCrop(0), ValueError, "size must be"),
        (lambda: T.RandomCrop((3, 3, 3)), ValueError, r"size .*\(3, 3, 3\)"),
        (lambda: T.RandomCrop(9)(images()), ValueError, r"\(8, 7\), got \(9, 9\)"),
        (lambda: T.RandomCrop(3, padding_mode="wrap"), ValueError, "padding_mode"),
        (lambda: T.RandomAffine(-1), ValueError, "degrees"),
        (lambda: T.RandomAffine(0, scale=(2.0, 1.0)), ValueError, "least, most"),
        (lambda: T.RandomAffine(0, translate=(0.1,)), ValueError, "translate must be two"),
        (lambda: T.GaussianNoise(sigma=-1), ValueError, "sigma"),
        (lambda: T.MixUp(2)(images(3), np.array([0, 1, 2])), ValueError, "target"),
        (lambda: T.MixUp(3)(images(3), np.array([0, 1])), ValueError, "target"),
        (lambda: T.Compose([3]), TypeError, "transforms must be callable, got int"),
        (lambda: T.Compose([T.MixUp(2), T.GaussianNoise()]), ValueError, "end with MixUp"),
        (lambda: T.Transformed([], "flip"), TypeError, "transform must be callable"),
        (lambda: T.GaussianNoise()(np.zeros((3, 3), np.float32)), ValueError, r"\(3, 3\)"),
        (lambda: T.GaussianNoise()(np.zeros((2, 3, 3), np.uint8)), TypeError, "images"),
        (lambda: T.GaussianNoise(generator=3), TypeError, "generator"),
    ],
)
def test_bad_input_names_the_argument(call, error, text):
    with h.shapes_unchecked(), pytest.raises(error, match=text):
        call()
