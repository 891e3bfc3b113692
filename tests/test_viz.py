"""Figures: style, the output that `show` leaves, plots and drawings."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from PIL import Image

from dlnotes import viz
from dlnotes.autograd import Tensor
from dlnotes.viz import _show

ALT = "A line that rises from one to three"


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        plt.switch_backend("agg")
        viz.use_style()
        yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    """The outputs that a notebook would get."""
    outputs = []
    monkeypatch.setattr(_show, "display", lambda data, metadata: outputs.append((data, metadata)))
    return outputs


def labelled(**subplots_options):
    fig, axes = viz.subplots(**subplots_options)
    for ax in np.ravel(axes):
        ax.plot([1, 2, 3])
        ax.set(xlabel="epoch", ylabel="loss")
    return fig


# Style


def _linear(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _lab(rgb):
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(to_xyz @ rgb / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "red-blind": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "green-blind": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "blue-blind": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_can_be_told_apart(sight):
    seen = [_lab((np.array(SIGHT[sight]) @ _linear(c)).clip(0, 1)) for c in viz.COLOURS]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[i + 1 :]]
    assert min(distances) >= 30


@pytest.mark.parametrize("name", viz.PALETTE)
def test_colours_stand_out_on_white(name):
    luminance = _linear(viz.PALETTE[name]) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 3


def test_colour_begins_again():
    assert viz.colour(len(viz.COLOURS) + 1) == viz.colour(1) == viz.COLOURS[1]


def test_lines_differ_in_more_than_colour():
    _, ax = viz.subplots()
    lines = [ax.plot([0, 1])[0] for _ in range(12)]
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}
    styles = {str(line._unscaled_dash_pattern) for line in lines[:6]}
    assert len(looks) == 12
    assert len(styles) == 6


@pytest.mark.parametrize("columns", [1, 2])
def test_text_is_legible_on_a_phone(columns):
    fig = labelled(ncols=columns)
    smallest = min(plt.rcParams[f"{a}tick.labelsize"] for a in "xy")
    on_phone = smallest / 72 * 360 / fig.get_figwidth()
    assert on_phone >= 7.8  # pixels of 360


@pytest.mark.parametrize("options", [{"nrows": 0}, {"ncols": 0}, {"ncols": 4}])
def test_subplots_refuses(options):
    with pytest.raises(ValueError, match="ncols"):
        viz.subplots(**options)


def test_subplots_passes_options_on():
    _, axes = viz.subplots(2, 2, squeeze=False, sharex=True)
    assert axes.shape == (2, 2)


# show


def test_show_leaves_picture_text_and_alternative_text(shown):
    fig = labelled()
    viz.show(fig, alt=f"  {ALT}\n over three epochs")
    [(data, metadata)] = shown
    said = f"{ALT} over three epochs"
    assert data["text/plain"] == f"Figure: {said}"
    assert metadata["image/png"] == {"alt": said, "width": 560}
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert picture.size == (672, 432)
    assert not plt.fignum_exists(fig.number)


def test_same_figure_same_bytes():
    first, second = _show.png_bytes(labelled()), _show.png_bytes(labelled())
    assert first == second
    assert b"matplotlib" not in first.lower()
    assert len(first) < 60_000


def test_background_is_white_paper():
    picture = Image.open(io.BytesIO(_show.png_bytes(labelled()))).convert("RGBA")
    assert picture.getpixel((0, 0)) == (255, 255, 255, 255)


def test_fewer_colours_look_the_same():
    fig = labelled()
    small = Image.open(io.BytesIO(_show.png_bytes(fig)))
    whole = Image.open(io.BytesIO(_show.png_bytes(fig, small=False))).convert("RGB")
    moved = np.abs(np.asarray(small.convert("RGB"), int) - np.asarray(whole, int))
    assert small.mode == "P"
    assert moved.mean() <= 0.5


def test_photograph_keeps_its_colours():
    noise = np.random.default_rng(3).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    fig = viz.image_grid([noise])
    assert Image.open(io.BytesIO(_show.png_bytes(fig))).mode == "RGB"


@pytest.mark.parametrize("alt", ["", "A plot.", " " * 40])
def test_show_needs_an_alternative_text(shown, alt):
    fig = labelled()
    with pytest.raises(ValueError, match="alt"):
        viz.show(fig, alt=alt)
    assert not shown
    assert not plt.fignum_exists(fig.number)


def test_alternative_text_is_a_string():
    with pytest.raises(TypeError, match="alt must be a string"):
        _show.check_alt(3)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_show_needs_labels(shown, axis):
    fig = labelled(nrows=2)
    fig.axes[1].set(**{f"{axis}label": ""})
    with pytest.raises(ValueError, match=f"axes 1 .*label on {axis}:"):
        viz.show(fig, alt=ALT)
    assert not shown


def test_shared_and_common_labels_count(shown):
    fig, axes = viz.subplots(2, 2, sharex=True, sharey=True)
    axes[1, 0].set(xlabel="epoch", ylabel="loss")
    viz.show(fig, alt=ALT)
    fig, axes = viz.subplots(2, 2)
    fig.supxlabel("epoch")
    fig.supylabel("loss")
    viz.show(fig, alt=ALT)
    assert len(shown) == 2


def test_colour_bar_needs_one_label(shown):
    fig, ax = viz.subplots()
    ax.set(xlabel="x", ylabel="y")
    bar = fig.colorbar(ax.imshow(np.eye(3)))
    with pytest.raises(ValueError, match="colour bar"):
        viz.show(fig, alt=ALT)
    fig, ax = viz.subplots()
    ax.set(xlabel="x", ylabel="y")
    bar = fig.colorbar(ax.imshow(np.eye(3)))
    bar.set_label("loss")
    viz.show(fig, alt=ALT)
    assert len(shown) == 1


def test_three_dimensions_need_three_labels(shown):
    fig, _ = viz.subplots(subplot_kw={"projection": "3d"})
    fig.axes[0].set(xlabel="w0", ylabel="w1")
    with pytest.raises(ValueError, match="label on z"):
        viz.show(fig, alt=ALT)


def test_axes_that_are_off_need_no_labels(shown):
    fig, ax = viz.subplots()
    ax.set_axis_off()
    viz.show(fig, alt=ALT)
    assert len(shown) == 1


def test_show_refuses_what_is_no_figure(shown):
    with pytest.raises(TypeError, match="must be a matplotlib Figure, got Axes"):
        _show.check_figure(labelled().axes[0])
    with pytest.raises(ValueError, match="empty"):
        viz.show(plt.figure(), alt=ALT)


def test_outside_a_notebook_the_text_is_printed(capsys):
    viz.show(labelled(), alt=ALT)
    assert capsys.readouterr().out == f"Figure: {ALT}\n"


# curves and errorbars


def history(values, **more):
    return {"train_loss": list(values), **more}


def test_curves_of_one_run():
    fig = viz.curves(history([3, 2, 1], val_loss=[4, 3, 2]), title="It falls")
    [ax] = fig.axes
    train, validation = ax.get_lines()
    assert list(train.get_xdata()) == [1, 2, 3]
    assert list(train.get_ydata()) == [3, 2, 1]
    assert (train.get_label(), validation.get_label()) == ("training loss", "validation loss")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title("left")) == (
        "epoch",
        "loss",
        "It falls",
    )
    _show.check_figure(fig)


def test_curves_of_several_seeds_have_a_band():
    fig = viz.curves({"SGD": [history([4, 2]), history([2, 2])], "other": history([1, 1])})
    [ax] = fig.axes
    assert [line.get_label() for line in ax.get_lines()] == ["SGD", "other"]
    assert list(ax.get_lines()[0].get_ydata()) == [3, 2]
    [band] = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(3 - np.sqrt(2))
    assert heights.max() == pytest.approx(3 + np.sqrt(2))


def test_curves_of_one_epoch_can_be_seen():
    [ax] = viz.curves(history([1.0])).axes
    assert ax.get_lines()[0].get_marker() == "o"


def test_curves_draw_into_given_axes_on_a_log_scale():
    fig, axes = viz.subplots(1, 2)
    assert viz.curves(history([1, 0.1]), log=True, ax=axes[1]) is fig
    assert axes[1].get_yscale() == "log"
    assert not axes[0].get_lines()


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ({}, "histories"),
        ({"accuracy": [1.0]}, r"keys.*accuracy"),
        ({"SGD": [history([1, 2]), history([1])]}, "SGD.*equally many epochs"),
    ],
)
def test_curves_refuse(histories, message):
    with pytest.raises(ValueError, match=message):
        viz.curves(histories)


def test_errorbars_of_names():
    fig = viz.errorbars({"ReLU": [0.9, 0.8], "tanh": np.array([0.5, 0.7])}, ylabel="accuracy")
    [ax] = fig.axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["ReLU", "tanh"]
    points = [line for line in ax.get_lines() if line.get_marker() in ("o", "s")]
    assert [line.get_ydata()[0] for line in points] == pytest.approx([0.85, 0.6])
    seeds = [list(line.get_ydata()) for line in ax.get_lines() if line.get_marker() == "."]
    assert seeds == [[0.9, 0.8], [0.5, 0.7]]
    _show.check_figure(fig)


def test_errorbars_over_x():
    table = np.array([[1.0, 3.0], [2.0, 2.0]])
    fig = viz.errorbars({"MLP": table}, x=[1, 10], xlabel="width (units)", ylabel="error (%)")
    [ax] = fig.axes
    [container] = ax.containers
    assert list(container.lines[0].get_ydata()) == [2, 2]
    [bars] = container.lines[2]
    assert bars.get_segments()[0][:, 1] == pytest.approx([2 - np.sqrt(2), 2 + np.sqrt(2)])
    assert bars.get_segments()[1][:, 1] == pytest.approx([2, 2])
    _show.check_figure(fig)


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        ({}, {}, "results"),
        ({"a": [1.0]}, {}, "at least two seeds"),
        ({"a": [[1.0, 2.0]]}, {}, r"shape \(seeds,\), got \(1, 2\)"),
        ({"a": [1.0, 2.0]}, {"x": [1, 2], "xlabel": "n"}, r"shape \(2, seeds\)"),
        ({"a": [[1.0, 2.0]]}, {"x": [1]}, "xlabel"),
    ],
)
def test_errorbars_refuse(results, options, message):
    with pytest.raises(ValueError, match=message):
        viz.errorbars(results, ylabel="accuracy", **options)


# image_grid


@pytest.mark.parametrize("shape", [(7, 8, 8), (1, 5, 9), (3, 4, 6, 3)])
def test_image_grid(shape):
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    titles = [f"image {i}" for i in range(len(images))]
    fig = viz.image_grid(images, titles, title="Samples")
    drawn = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in drawn] == titles
    for ax, image in zip(drawn, images, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert not any(ax.axison for ax in fig.axes)
    _show.check_figure(fig)


def test_image_grid_shows_bytes_on_their_own_scale():
    [ax] = viz.image_grid(np.full((1, 4, 4), 100, np.uint8)).axes
    assert ax.images[0].get_clim() == (0, 255)


@pytest.mark.parametrize(
    ("images", "titles", "message"),
    [
        ([], None, "at least one image"),
        ([np.zeros(3)], None, r"images\[0\].*\(3,\)"),
        ([np.zeros((4, 4)), np.zeros((4, 4, 2))], None, r"images\[1\]"),
        ([np.zeros((0, 4))], None, r"images\[0\]"),
        ([np.zeros((4, 4))], ["a", "b"], r"titles.*\(1\), got 2"),
    ],
)
def test_image_grid_refuses(images, titles, message):
    with pytest.raises(ValueError, match=message):
        viz.image_grid(images, titles)


# decision_boundary

SAMPLES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)


def test_boundary_of_a_score_lies_at_its_level():
    _, ax = viz.subplots()
    viz.decision_boundary(ax, lambda p: p[:, 0], SAMPLES, np.array([0, 1, 0, 1]), level=0.25)
    [contour] = ax.collections
    across = contour.get_paths()[0].vertices[:, 0]
    np.testing.assert_allclose(across, 0.25, atol=1e-6)
    shade = ax.images[0].get_array()
    assert not np.array_equal(shade[0, 0], shade[0, -1])
    np.testing.assert_array_equal(shade[0, 0], shade[-1, 0])


def test_boundary_of_classes_keeps_the_samples():
    _, ax = viz.subplots()
    labels = np.array([2, 0, 1, 2])
    names = ["cat", "dog", "cow"]
    asked = []

    def predict(points):
        asked.append(points)
        return (points[:, 0] > 0.5).astype(int) + (points[:, 1] > 0.5)

    viz.decision_boundary(ax, predict, SAMPLES, labels, names=names)
    assert asked[0].dtype == np.float32
    drawn = {line.get_label(): np.array(line.get_xydata()) for line in ax.get_lines()}
    for number, name in enumerate(names):
        np.testing.assert_array_equal(drawn[name], SAMPLES[labels == number])


@pytest.mark.parametrize("labels", [[-1, 1, 1, -1], [1, 1, 1, 1]])
def test_boundary_with_signs_or_one_class(labels):
    _, ax = viz.subplots()
    viz.decision_boundary(ax, lambda p: np.ones(len(p)), SAMPLES, np.array(labels), level=0.0)
    assert len(ax.get_lines()) == len(set(labels))


def test_boundary_of_one_sample():
    _, ax = viz.subplots()
    viz.decision_boundary(ax, lambda p: p[:, 0], SAMPLES[:1], np.array([0]))
    assert ax.get_xlim()[0] < 0 < ax.get_xlim()[1]


def test_boundary_refuses():
    _, ax = viz.subplots()
    with pytest.raises(ValueError, match="x and y"):
        viz.decision_boundary(ax, np.sum, SAMPLES[:0], np.array([], int))
    with pytest.raises(ValueError, match="predict's values must be finite"):
        viz.decision_boundary(ax, lambda p: p[:, 0] * np.nan, SAMPLES, np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match=r"names must be one per class \(2\), got 1"):
        viz.decision_boundary(ax, lambda p: p[:, 0], SAMPLES, np.array([0, 1, 0, 1]), names=["cat"])
    with pytest.raises(ValueError, match=r"predict must return shape \(40000,\)"):
        viz.decision_boundary(ax, lambda p: p, SAMPLES, np.array([0, 1, 0, 1]))


# contour_path


def bowl(a, b):
    return a**2 + 3 * b**2 + 1


def test_contour_path():
    _, ax = viz.subplots()
    path = np.array([[-1.0, 1.0], [0.5, -0.5], [0.0, 0.0]])
    limits = {"xlim": (-2, 2), "ylim": (-1, 1)}
    viz.contour_path(ax, bowl, {"slow": path, "fast": path[:1]}, minimum=(0, 0), **limits)
    lines = {line.get_label(): np.array(line.get_xydata()) for line in ax.get_lines()}
    np.testing.assert_array_equal(lines["slow"], path)
    np.testing.assert_array_equal(lines["fast"], path[:1])
    assert ax.get_xlim() == (-2, 2)
    assert ax.get_legend() is not None


def test_contour_levels_by_ratio():
    _, ax = viz.subplots()
    viz.contour_path(ax, bowl, np.zeros((1, 2)), xlim=(-2, 2), ylim=(-2, 2), log=True, levels=5)
    levels = ax.collections[0].levels
    np.testing.assert_allclose(levels[1:] / levels[:-1], levels[1] / levels[0])
    assert ax.get_legend() is None


@pytest.mark.parametrize(
    ("function", "path", "log", "message"),
    [
        (bowl, np.zeros(2), False, r"shape \(steps \+ 1, 2\), got \(2,\)"),
        (bowl, np.zeros((0, 2)), False, "shape"),
        (lambda a, b: 1.0, np.zeros((1, 2)), False, "function must return shape"),
        (lambda a, b: a * np.nan, np.zeros((1, 2)), False, "finite"),
        (lambda a, b: a, np.zeros((1, 2)), True, "positive"),
    ],
)
def test_contour_path_refuses(function, path, log, message):
    _, ax = viz.subplots()
    with pytest.raises(ValueError, match=message):
        viz.contour_path(ax, function, path, xlim=(-1, 1), ylim=(-1, 1), log=log)


def test_contour_of_a_flat_function():
    _, ax = viz.subplots()
    viz.contour_path(ax, lambda a, b: 0 * a, np.zeros((1, 2)), xlim=(-1, 1), ylim=(-1, 1))
    assert len(ax.get_lines()) == 2


# drawings


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for text in fig.axes[0].texts]


def patches(fig: Figure, kind: type) -> list:
    return [patch for patch in fig.axes[0].patches if isinstance(patch, kind)]


def scalar(value):
    return Tensor(np.float64(value), requires_grad=True)


def test_graph_shows_values_and_gradients():
    a, b, c = scalar(5), scalar(3), scalar(2)
    u = b * c
    v = a + u
    result = 3 * v
    result.backward()
    fig = viz.draw_graph(result, names={"a": a, "b": b, "c": c, "J": result}, title="J")
    assert sorted(texts(fig)) == sorted(
        [
            "J",
            "3",
            "a\n5\ngrad 3",
            "b\n3\ngrad 6",
            "c\n2\ngrad 9",
            "×\n6\ngrad 3",
            "+\n11\ngrad 3",
            "J:  ×\n33\ngrad 1",
        ]
    )
    assert len(patches(fig, FancyBboxPatch)) == 7
    assert len(patches(fig, FancyArrowPatch)) == 6
    _show.check_figure(fig)


def test_graph_without_gradients():
    a = scalar(1)
    b = a * 2
    b.backward()
    assert not any("grad" in text for text in texts(viz.draw_graph(b, gradients=False)))


def test_graph_draws_a_tensor_used_twice_with_two_arrows():
    a = scalar(1)
    b = a + a
    fig = viz.draw_graph(b + b)
    arrows = patches(fig, FancyArrowPatch)
    assert len(patches(fig, FancyBboxPatch)) == 3
    assert len(arrows) == 4
    ends = {arrow.get_path().vertices.round(3).tobytes() for arrow in arrows}
    assert len(ends) == 4


def boxes_of(fig):
    return [
        (p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height())
        for p in patches(fig, FancyBboxPatch)
    ]


def skipping():
    x = scalar(2)
    y = x * x
    return (y + x) * y + x


def deep():
    x = scalar(0.5)
    for _ in range(6):
        x = (x * 2).tanh()
    return x


@pytest.mark.parametrize("build", [skipping, deep])
def test_graph_boxes_and_passing_arrows_do_not_overlap(build):
    fig = viz.draw_graph(build())
    boxes = boxes_of(fig)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        for X0, Y0, X1, Y1 in boxes[i + 1 :]:
            assert x1 <= X0 or x0 >= X1 or y1 <= Y0 or y0 >= Y1
    for line in fig.axes[0].get_lines():
        a, b = line.get_xydata()[:2], line.get_xydata()[1:3]
        for start, end in zip(a, b, strict=False):
            for t in np.linspace(0.01, 0.99, 50):
                x, y = start + t * (end - start)
                assert not any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in boxes)
    width, height = fig.get_size_inches()
    assert all(x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height for x0, y0, x1, y1 in boxes)


def test_graph_of_arrays_shows_shapes():
    w = Tensor(np.ones((2, 4), np.float32), requires_grad=True)
    x = Tensor(np.ones((3, 2), np.float32))
    loss = (x @ w).sum()
    fig = viz.draw_graph(loss, names={"W": w})
    assert "W\n(2, 4)" in texts(fig)
    assert "constant\n(3, 2)" in texts(fig)


def test_graph_refuses():
    a = scalar(1)
    with pytest.raises(ValueError, match="no graph"):
        viz.draw_graph(a)
    with pytest.raises(ValueError, match="'z' is not a node"):
        viz.draw_graph(a + 1, names={"z": scalar(0)})
    b = a
    for _ in range(50):
        b = -b
    with pytest.raises(ValueError, match="at most 40 nodes, the graph has 51"):
        viz.draw_graph(b)


def test_network_draws_units_and_weights():
    fig = viz.draw_network([2, 3, 1], title="XOR")
    assert len(patches(fig, Circle)) == 6
    assert len(fig.axes[0].get_lines()) == 2 * 3 + 3 * 1
    assert texts(fig) == ["XOR", "input\n2", "hidden\n3", "output\n1"]


def test_network_leaves_units_out():
    fig = viz.draw_network([784, 6, 10], labels=["pixels", "ReLU", "classes"])
    assert texts(fig).count("⋮") == 2
    assert len(patches(fig, Circle)) == 6 + 6 + 6


@pytest.mark.parametrize(
    ("sizes", "labels", "error", "message"),
    [
        ([3], None, ValueError, "at least two layers"),
        ([3, 0], None, ValueError, r"layer_sizes\[1\]"),
        ([3, 1.5], None, TypeError, r"layer_sizes\[1\]"),
        ([3, 1], ["input"], ValueError, r"labels.*\(2\), got 1"),
    ],
)
def test_network_refuses(sizes, labels, error, message):
    with pytest.raises(error, match=message):
        viz.draw_network(sizes, labels=labels)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_flow_joins_neighbours(count, columns):
    fig = viz.flow([f"step {i}" for i in range(count)], columns=columns)
    boxes = boxes_of(fig)
    arrows = [arrow.get_path().vertices for arrow in patches(fig, FancyArrowPatch)]
    assert len(boxes) == count
    assert len(arrows) == count - 1
    assert texts(fig) == [f"step {i}" for i in range(count)]
    assert all(x0 >= -0.01 and x1 <= 5.61 for x0, _, x1, _ in boxes)


def test_flow_with_a_way_back():
    fig = viz.flow(["batch", "forward", "backward", "update"], back=[(3, 0, "next batch")])
    assert "next batch" in texts(fig)
    assert len(patches(fig, FancyArrowPatch)) == 4
    _show.check_figure(fig)


@pytest.mark.parametrize(
    ("boxes", "back", "message"),
    [
        (["alone"], (), "at least two"),
        (["a", " "], (), "none empty"),
        (["a", "b"], [(0, 2, "x")], "from box 0 to box 2 of 2"),
        (["a", "b"], [(1, 1, "x")], "from box 1 to box 1"),
    ],
)
def test_flow_refuses(boxes, back, message):
    with pytest.raises(ValueError, match=message):
        viz.flow(boxes, back=back)
