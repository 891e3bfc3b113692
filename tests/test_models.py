"""The networks of the chapters: names, sizes and work as published, on either engine."""

import copy
import functools
import inspect
import pickle
import subprocess
import sys

import core_helpers as h
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dlnotes
from dlnotes import data, models, nn
from dlnotes.autograd import no_grad, tensor

# ---- engines -------------------------------------------------------------------------------------


class Twice(models.Network):
    """A reader's own network, of a block of its own."""

    def __init__(self, width, *, nn=nn):
        super().__init__()
        self.block = models.MLP((3, width), nn=nn)
        self.scale = nn.Parameter(next(self.block.parameters())[0, :1] * 0 + 2)

    def forward(self, x):
        return self.block(x) * self.scale


def test_a_network_belongs_to_its_engine():
    ours, theirs = Twice(4), Twice(4, nn=torch.nn)
    assert isinstance(ours, Twice)
    assert isinstance(ours, nn.Module)
    assert isinstance(theirs, Twice)
    assert isinstance(theirs, torch.nn.Module)
    assert (ours.nn, theirs.nn) == (nn, torch.nn)
    assert type(ours).__name__ == type(theirs).__name__ == "Twice"
    assert type(Twice(5)) is type(ours)
    assert repr(ours) == repr(theirs)
    assert (
        list(ours.state_dict())
        == list(theirs.state_dict())
        == [
            "scale",
            "block.layers.1.weight",
            "block.layers.1.bias",
        ]
    )
    assert inspect.signature(models.LeNet5).parameters["nn"].default is nn


@pytest.mark.parametrize("engine", [nn, torch.nn])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_networks_are_copied_and_pickled(how, engine):
    net = models.CifarResNet(8, width=0.25, nn=engine).eval()
    other = how(net)
    assert type(other) is type(net)
    assert not other.training
    x = h.draw(0, (2, 3, 8, 8), np.float32)
    x = torch.tensor(x) if engine is torch.nn else x
    expected = net(x).detach().numpy()
    np.testing.assert_array_equal(other(x).detach().numpy(), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.data[...] = 0
    np.testing.assert_array_equal(net(x).detach().numpy(), expected)


def test_engines_are_modules():
    with (
        h.shapes_unchecked(),
        pytest.raises(TypeError, match=r"nn must be an engine such as dlnotes\.nn or torch\.nn"),
    ):
        models.LeNet5(nn=3)
    with pytest.raises(TypeError, match="nn must be an engine"):
        models.LeNet5(nn=np)
    with pytest.raises(TypeError, match="LeNet5 has an engine already: call LeNet5"):
        type(models.LeNet5())(nn=torch.nn)


def test_the_room_needs_no_torch():
    code = (
        "import sys\nfrom dlnotes import models\nmodels.LeNet5()\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- parameters and work as published ------------------------------------------------------------

# Network, settings, parameters, and billions of multiply-accumulates at 224 pixels: the figures
# that torchvision prints with its weights.
TORCHVISION = [
    (models.AlexNet, {}, 61_100_840, 0.714),
    (models.vgg11, {}, 132_863_336, 7.609),
    (models.vgg13, {}, 133_047_848, 11.308),
    (models.vgg16, {}, 138_357_544, 15.470),
    (models.vgg19, {}, 143_667_240, 19.632),
    (models.vgg11, {"batch_norm": True}, 132_868_840, 7.609),
    (models.GoogLeNet, {"aux_logits": False}, 6_624_904, 1.498),
    (models.GoogLeNet, {}, 13_004_888, 1.498),
    (models.resnet18, {}, 11_689_512, 1.814),
    (models.resnet34, {}, 21_797_672, 3.664),
    (models.resnet50, {}, 25_557_032, 4.089),
    (models.resnet101, {}, 44_549_160, 7.801),
    (models.densenet121, {}, 7_978_856, 2.834),
    (models.MobileNetV2, {}, 3_504_872, 0.301),
]


@functools.cache
def published(network, **settings):
    """Return a network at full size, but of shapes alone: without weights, without products."""
    with torch.device("meta"):
        return network(nn=torch.nn, **settings)


@pytest.mark.parametrize(("network", "settings", "parameters", "billions"), TORCHVISION)
def test_size_and_work_as_in_torchvision(network, settings, parameters, billions):
    net = published(network, **settings)
    summary = models.summary(net, (1, 3, 224, 224))
    assert models.count_parameters(net) == summary.parameters == parameters
    assert round(summary.macs / 1e9, 3) == billions
    assert summary[-1].output_shape == (1, 1000)
    executed = sum(row.parameters for row in summary)
    assert (executed == parameters) == (network is not models.GoogLeNet or bool(settings))


PAPERS = [
    # Krizhevsky et al.: "60 million parameters"; so many in the sizes that they give.
    (models.AlexNetPaper, {}, 60_965_224),
    (models.ZFNet, {}, 62_357_608),
    (models.GoogLeNet, {"form": "paper", "aux_logits": False}, 6_998_552),
    # He et al., table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million.
    (models.CifarResNet, {"depth": 20}, 269_722),
    (models.CifarResNet, {"depth": 32}, 464_154),
    (models.CifarResNet, {"depth": 44}, 658_586),
    (models.CifarResNet, {"depth": 56}, 853_018),
    (models.CifarResNet, {"depth": 110}, 1_727_962),
    (models.LeNet5, {}, 61_706),
]


@pytest.mark.parametrize(("network", "settings", "parameters"), PAPERS)
def test_size_as_in_the_papers(network, settings, parameters):
    assert models.count_parameters(published(network, **settings)) == parameters


def test_work_of_googlenet_as_in_the_paper():
    """Table 1 adds up to 1,502 million, with 34 for the first convolution, which has 118."""
    net = published(models.GoogLeNet, form="paper", aux_logits=False)
    summary = models.summary(net, (1, 3, 224, 224))
    first = 112 * 112 * 64 * 7 * 7 * 3
    assert summary[0].macs == first
    assert (summary.macs - first) / 1e6 + 34 == pytest.approx(1502, rel=0.005)


def test_lenet_has_the_papers_parameters_and_connections():
    """Section II.B gives each layer's trainable parameters and connections, and 340,908 in all."""
    rows = {row.name: row for row in models.summary(models.LeNet5Paper(), (1, 1, 32, 32))}
    c3 = [row for name, row in rows.items() if name.startswith("c3")]
    sizes = {"c1": (156, (1, 6, 28, 28)), "s2": (12, (1, 6, 14, 14)), "s4": (32, (1, 16, 5, 5)),
             "c5": (48_120, (1, 120, 1, 1)), "f6": (10_164, (1, 84))}  # fmt: skip
    for name, expected in sizes.items():
        assert (rows[name].parameters, rows[name].output_shape) == expected
    assert sum(row.parameters for row in c3) == 1_516
    assert models.count_parameters(models.LeNet5Paper()) == 60_000

    def connections(*layers):  # each output also has its bias
        return sum(row.macs + int(np.prod(row.output_shape)) for row in layers)

    c1, c5, f6 = (connections(rows[name]) for name in ("c1", "c5", "f6"))
    s2, s4 = (5 * int(np.prod(rows[name].output_shape)) for name in ("s2", "s4"))
    assert (c1, s2, connections(*c3), s4, c5) == (122_304, 5_880, 151_600, 2_000, 48_120)
    assert c1 + s2 + connections(*c3) + s4 + c5 + f6 + 84 * 10 == 340_908


def test_lenets_third_layer_sees_what_its_table_says():
    net = models.LeNet5Paper().double()
    seen = {map_: tuple(sorted(sees)) for map_, sees in enumerate(map(set, table_of(net.c3)))}
    assert [len(sees) for sees in seen.values()] == [3] * 6 + [4] * 9 + [6]
    assert seen[0] == (0, 1, 2)
    assert seen[4] == (0, 4, 5)
    assert seen[12] == (0, 1, 3, 4)
    assert seen[14] == (0, 2, 3, 5)
    counts = np.bincount([i for sees in seen.values() for i in sees])
    np.testing.assert_array_equal(counts, 10)  # each map of S2 feeds ten of C3


def table_of(partial):
    """Find out by gradients which inputs each output map depends on."""
    table = []
    for output in range(16):
        x = tensor(h.draw(0, (1, 6, 5, 5), np.float64), requires_grad=True)
        partial(x)[0, output].sum().backward()
        table.append(np.flatnonzero(np.abs(x.grad).sum((0, 2, 3))))
    return table


def test_lenets_output_is_the_distance_to_codes():
    net = models.LeNet5Paper(5)
    codes = net.output.codes.data
    assert set(np.unique(codes)) == {-1, 1}
    np.testing.assert_array_equal(net.output(codes).data.argmax(1), np.arange(5))
    np.testing.assert_array_equal(np.diag(net.output(codes).data), 0)
    assert net.squash(np.ones(1)).data[0] == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(net.s2.weight.data, 0.25)  # it starts as average pooling


def test_alexnets_local_response_normalisation_is_the_papers():
    """k + α Σ a² with α = 1e-4, over five neighbouring maps."""
    net = models.AlexNetPaper(3, width=0.05)
    norm = net.features[2]
    x = h.draw(0, (1, 7, 1, 1), np.float64, 30)
    a = x[0, :, 0, 0]
    expected = [a[i] / (2 + 1e-4 * (a[max(0, i - 2) : i + 3] ** 2).sum()) ** 0.75 for i in range(7)]
    np.testing.assert_allclose(norm(x).data[0, :, 0, 0], expected, rtol=1e-12)


def test_textcnn_has_kims_sizes():
    net = models.TextCNN(1000, 2)
    assert models.count_parameters(net) == 1000 * 300 + 360_300 + 602
    vectors = h.draw(0, (9, 4), np.float32)
    static = models.TextCNN(9, 3, 4, filters=2, vectors=vectors, freeze=True)
    np.testing.assert_array_equal(static.embedding.weight.data, vectors)
    assert models.count_parameters(static) - models.count_parameters(static, True) == 36
    assert models.count_parameters(static, trainable_only=True) == 2 * (12 * 4 + 3) + 3 * 7
    with pytest.raises(ValueError, match=r"vectors must have shape \(9, 5\), got \(9, 4\)"):
        models.TextCNN(9, 3, 5, vectors=vectors)


# ---- torchvision's names -------------------------------------------------------------------------


def with_norm(*names):
    """Names in a state_dict of batch norms, here: weight, bias and the running statistics."""
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [f"{name}.{part}" for name in names for part in statistics]


def affine(*names):
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def alexnet_names():
    return affine(*(f"features.{i}" for i in (0, 3, 6, 8, 10)),
                  *(f"classifier.{i}" for i in (1, 4, 6)))  # fmt: skip


def vgg16_names():
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    return affine(*(f"features.{i}" for i in places), *(f"classifier.{i}" for i in (0, 3, 6)))


def vgg11_bn_names():
    names = []
    for i in (0, 4, 8, 11, 15, 18, 22, 25):
        names += affine(f"features.{i}") + with_norm(f"features.{i + 1}")
    return names + affine(*(f"classifier.{i}" for i in (0, 3, 6)))


def resnet_names(layers, convolutions, first_stage_widens):
    names = ["conv1.weight", *with_norm("bn1")]
    for stage, count in enumerate(layers, start=1):
        for i in range(count):
            block = f"layer{stage}.{i}"
            for j in range(1, convolutions + 1):
                names += [f"{block}.conv{j}.weight", *with_norm(f"{block}.bn{j}")]
            if i == 0 and (stage > 1 or first_stage_widens):
                names += [f"{block}.downsample.0.weight", *with_norm(f"{block}.downsample.1")]
    return names + affine("fc")


def googlenet_names():
    def conv(*names):
        return [n for name in names for n in (f"{name}.conv.weight", *with_norm(f"{name}.bn"))]

    names = conv("conv1", "conv2", "conv3")
    for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        parts = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
        names += conv(*(f"inception{block}.{part}" for part in parts))
    for head in ("aux1", "aux2"):
        names += conv(f"{head}.conv") + affine(f"{head}.fc1", f"{head}.fc2")
    return names + affine("fc")


def densenet_names():
    names = ["features.conv0.weight", *with_norm("features.norm0")]
    for block, count in enumerate((6, 12, 24, 16), start=1):
        for i in range(1, count + 1):
            layer = f"features.denseblock{block}.denselayer{i}"
            for j in (1, 2):
                names += [*with_norm(f"{layer}.norm{j}"), f"{layer}.conv{j}.weight"]
        if block < 4:
            between = f"features.transition{block}"
            names += [*with_norm(f"{between}.norm"), f"{between}.conv.weight"]
    return names + with_norm("features.norm5") + affine("classifier")


def mobilenet_names():
    names = ["features.0.0.weight", *with_norm("features.0.1")]
    for i in range(1, 18):
        block = f"features.{i}.conv"
        inner = 1 if i == 1 else 2  # the first does not widen
        for j in range(inner):
            names += [f"{block}.{j}.0.weight", *with_norm(f"{block}.{j}.1")]
        names += [f"{block}.{inner}.weight", *with_norm(f"{block}.{inner + 1}")]
    return [*names, "features.18.0.weight", *with_norm("features.18.1"), *affine("classifier.1")]


@pytest.mark.parametrize(
    ("network", "settings", "names"),
    [
        (models.AlexNet, {}, alexnet_names()),
        (models.vgg16, {}, vgg16_names()),
        (models.vgg11, {"batch_norm": True}, vgg11_bn_names()),
        (models.GoogLeNet, {}, googlenet_names()),
        (models.resnet18, {}, resnet_names((2, 2, 2, 2), 2, False)),
        (models.resnet34, {}, resnet_names((3, 4, 6, 3), 2, False)),
        (models.resnet50, {}, resnet_names((3, 4, 6, 3), 3, True)),
        (models.densenet121, {}, densenet_names()),
        (models.MobileNetV2, {}, mobilenet_names()),
    ],
)
def test_names_as_in_torchvision(network, settings, names):
    assert sorted(published(network, **settings).state_dict()) == sorted(names)


def photo(name, side=224):
    """Return a photo as ImageNet's networks expect it: the middle of 256 pixels, normalised."""
    image = Image.fromarray(data.load("images")[name].image)
    factor = 256 / min(image.size)
    image = image.resize([round(length * factor) for length in image.size], Image.BILINEAR)
    left, top = ((length - side) // 2 for length in image.size)
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 255
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return ((pixels - mean) / deviation).transpose(2, 0, 1)[None]


def test_pretrained_mobilenet_knows_photos():
    weights = data.load("mobilenet_v2")
    net = models.MobileNetV2().eval()
    result = net.load_state_dict(weights.state_dict, strict=False)
    assert result.unexpected_keys == []
    assert {name.rpartition(".")[2] for name in result.missing_keys} == {"num_batches_tracked"}
    with no_grad():
        names = ("Neuschwanstein", "TajMahal", "Eglise_dAuvers-sur-Oise")
        y = nn.functional.softmax(net(np.concatenate([photo(name) for name in names]))).data
    assert [weights.classes[i] for i in y.argmax(1)] == ["castle", "mosque", "church"]
    assert y.max(1)[0] == pytest.approx(0.93, abs=0.01)  # as the rounded weights were checked
    theirs = models.MobileNetV2(nn=torch.nn).eval()
    theirs.load_state_dict(nn.to_torch(weights.state_dict), strict=False)
    expected = theirs(torch.tensor(photo(names[1]))).softmax(1)[0].detach().numpy()
    np.testing.assert_allclose(y[1], expected, atol=1e-4)


def test_pretrained_vgg_features():
    weights = data.load("vgg16").state_dict
    layers = ("relu1_2", "conv4_1", "pool2")
    net, theirs = models.VGGFeatures(layers), models.VGGFeatures(layers, nn=torch.nn)
    assert net.load_state_dict(weights) == ([], [])
    theirs.load_state_dict(nn.to_torch(weights))
    x = photo("TajMahal", 64)
    found, expected = net(x), theirs(torch.tensor(x))
    assert {name: y.shape for name, y in found.items()} == {
        "relu1_2": (1, 64, 64, 64),
        "pool2": (1, 128, 16, 16),
        "conv4_1": (1, 512, 8, 8),
    }
    for name, y in found.items():
        scale = float(np.abs(y.data).max())
        np.testing.assert_allclose(y.data, expected[name].detach(), atol=1e-5 * scale)
    whole = models.VGG(16, nn=torch.nn, width=1 / 64).features
    assert [type(layer).__name__ for layer in theirs.features] == [
        type(layer).__name__ for layer in whole[:18]
    ]
    average = models.VGGFeatures(("pool1",), pool="average")
    assert isinstance(average.features[-1], nn.AvgPool2d)
    with pytest.raises(ValueError, match="layers must be one of"):
        models.VGGFeatures(("conv4_4",))
    assert len(models.VGGFeatures(("conv4_4",), depth=19).features) == 26


# ---- summary -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "settings", "shape"),
    [
        (models.LeNet5Paper, {}, (1, 1, 32, 32)),
        (models.GoogLeNet, {"width": 0.05, "small_input": True}, (2, 3, 32, 32)),
        (models.resnet50, {"width": 0.05}, (1, 3, 64, 64)),
        (models.DenseNet, {"growth_rate": 4, "block_config": (2, 2)}, (1, 3, 64, 64)),
        (models.MLP, {"sizes": (4, 3, 2), "normalization": "batch"}, (5, 2, 2)),
    ],
)
def test_summary_is_the_same_on_both_engines(network, settings, shape):
    ours, theirs = (models.summary(network(nn=e, **settings), shape) for e in (nn, torch.nn))
    assert ours.rows == theirs.rows
    assert (ours.macs, ours.parameters) == (theirs.macs, theirs.parameters)
    assert str(ours) == str(theirs)


def test_summary_rows():
    net = models.LeNet5()
    summary = models.summary(net, (3, 1, 28, 28))
    assert len(summary) == 11
    first, pooled, linear = summary[0], summary[2], summary[6]
    assert first == models.Layer("features.0", "Conv2d", (3, 6, 28, 28), 156, 3 * 117_600, 5)
    assert pooled == models.Layer("features.2", "AvgPool2d", (3, 6, 14, 14), 0, 0, 6)
    assert linear == models.Layer("classifier.0", "Linear", (3, 120), 48_120, 3 * 48_000, None)
    assert summary.macs == sum(row.macs for row in summary)
    table = pd.DataFrame(summary.rows)
    assert list(table.columns) == [
        *("name", "type", "output_shape", "parameters", "macs", "receptive_field")
    ]
    assert table.parameters.sum() == 61_706
    lines = str(summary).splitlines()
    assert lines[0] == "LeNet5"
    assert lines[2].split("  ")[0] == "layer"
    assert lines[4].split() == [
        *("features.0", "Conv2d", "(3,", "6,", "28,", "28)", "156", "352,800", "5")
    ]
    assert lines[-1].split() == ["total", "61,706", f"{summary.macs:,}"]
    assert "<td>61,706</td>" in summary._repr_html_()
    assert summary._repr_html_().count("<tr>") == 13


def test_summary_leaves_the_network_as_it_was():
    net = models.CifarResNet(8, width=0.25)
    net.layer1.eval()
    before = net.state_dict()
    models.summary(net, (1, 3, 8, 8))
    assert net.training
    assert not net.layer1.training
    assert net.layer1[0].conv1.training is False
    assert all(parameter.grad is None for parameter in net.parameters())
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert not any(module._forward_hooks for module in net.modules())


def test_summary_of_words_and_of_several_inputs():
    net = models.TextCNN(50, embedding_dim=6, filters=4)
    tokens = np.zeros((2, 9), np.int64)
    summary = models.summary(net, tokens)
    assert [row.macs for row in summary if row.type == "Conv1d"] == [
        2 * 4 * (10 - size) * 6 * size for size in (3, 4, 5)
    ]
    theirs = models.summary(models.TextCNN(50, embedding_dim=6, filters=4, nn=torch.nn), tokens)
    assert theirs.rows == summary.rows
    bilinear = nn.Bilinear(3, 4, 5)
    assert models.summary(bilinear, (2, 3), np.zeros((2, 4), np.float32)).macs == 2 * 5 * 3 * 4
    with pytest.raises(ValueError, match="inputs must hold a shape"):
        models.summary(net)


@pytest.mark.parametrize("engine", [nn, torch.nn])
def test_macs_of_every_kind_of_layer(engine):
    attention = models.summary(Attends(engine), (2, 7, 8))
    assert attention.macs == 2 * 7 * 4 * 8 * 8 + 2 * 2 * 7 * 7 * 8
    assert attention.parameters == attention[0].parameters == 4 * (8 * 8 + 8)
    up = engine.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
    assert models.summary(up, (1, 4, 5, 5)).macs == 25 * 4 * 3 * 9
    assert models.summary(engine.Sequential(engine.ReLU()), (1, 2)).macs == 0


@pytest.mark.parametrize("engine", [nn, torch.nn])
@pytest.mark.parametrize(("kind", "gates"), [("RNN", 1), ("LSTM", 4), ("GRU", 3)])
def test_macs_of_recurrent_layers(kind, gates, engine):
    rnn = getattr(engine, kind)(4, 6, 2, batch_first=True, bidirectional=True)
    (row,) = models.summary(rnn, (3, 5, 4))
    assert row.macs == 3 * 5 * 2 * gates * 6 * ((4 + 6) + (12 + 6))
    assert row.output_shape == (3, 5, 12)


def Attends(engine):
    """Return a network of one attention of a sequence to itself."""

    class Attends(engine.Module):
        def __init__(self):
            super().__init__()
            self.attention = engine.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    return Attends()


def test_a_layer_used_twice_has_two_rows_and_its_parameters_once():
    layer = nn.Linear(3, 3)
    rows = models.summary(nn.Sequential(layer, nn.ReLU(), layer), (1, 3)).rows
    assert [row.parameters for row in rows] == [12, 0, 0]
    assert [row.macs for row in rows] == [9, 0, 9]


# ---- receptive fields ----------------------------------------------------------------------------


def field_by_gradients(net, side, engine):
    """Return how many input pixels, along one axis, the middle of the output depends on."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.data[...] = 0.1  # so that nothing cancels or is cut off
    x = np.abs(h.draw(0, (1, 1, side, side), np.float64)) + 1
    x = tensor(x, requires_grad=True) if engine is nn else torch.tensor(x, requires_grad=True)
    y = net(x)
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    touched = np.flatnonzero(np.abs(np.asarray(x.grad)).sum((0, 1, 2)))
    return touched[-1] - touched[0] + 1


CHAINS = [
    [(3,), (3,), (3,)],
    [(3, 2, 1), (3, 2, 1), (5, 1, 2)],
    [(5, 1, 4, 2), (2, 2), (3, 1, 1)],
    [(7, 2, 3), (3, 2, 1), (3, 1, 1), (1, 2), (3, 1, 1)],
]


@pytest.mark.parametrize("chain", CHAINS)
def test_receptive_field_of_a_chain(chain):
    layers = [nn.Conv2d(1, 1, k, *rest, bias=False) for k, *rest in chain]
    net = nn.Sequential(*layers).double()
    expected = models.receptive_field(chain)
    assert models.summary(net, (1, 1, 96, 96))[-1].receptive_field == expected
    assert field_by_gradients(net, 96, nn) == expected


def test_receptive_fields_known_from_the_literature():
    """VGG-16 up to its last pooling 212, AlexNet 195 (Araujo, Norris and Sim, 2019)."""
    vgg = [block for count in (2, 2, 3, 3, 3) for block in [(3, 1, 1)] * count + [(2, 2)]]
    assert models.receptive_field(vgg) == 212
    alexnet = [(11, 4, 2), (3, 2), (5, 1, 2), (3, 2), *[(3, 1, 1)] * 3, (3, 2)]
    assert models.receptive_field(alexnet) == 195
    assert models.receptive_field([3, 3]) == models.receptive_field([5]) == 5
    assert models.receptive_field([]) == 1
    for network, pool, size in ((models.vgg16, "features.30", 212),
                                (models.AlexNet, "features.12", 195)):  # fmt: skip
        summary = models.summary(published(network), (1, 3, 224, 224))
        assert {row.name: row for row in summary}[pool].receptive_field == size
    with pytest.raises(ValueError, match="kernel_size must be at least 1, got 0"):
        models.receptive_field([0])
    with pytest.raises(ValueError, match="a layer must hold one to four numbers"):
        models.receptive_field([()])


BLOCKS = {  # the receptive field and the stride of the block
    "residual": (lambda engine: models.BasicBlock(1, 1, 2, nn=engine), 7, 2),
    "bottleneck": (lambda engine: models.Bottleneck(1, 1, nn=engine), 3, 1),
    "inception": (lambda engine: models.Inception(1, 1, 1, 1, 1, 1, 1, nn=engine), 5, 1),
    "dense": (lambda engine: models.densenet.DenseLayer(1, 2, nn=engine), 3, 1),
    "inverted": (lambda engine: models.InvertedResidual(1, 1, 1, 2, nn=engine), 3, 1),
}


@pytest.mark.parametrize("engine", [nn, torch.nn])
@pytest.mark.parametrize("name", BLOCKS)
def test_receptive_field_through_branches(name, engine):
    """The widest path counts, whatever joins the branches; a 3×3 convolution stands behind."""
    block, size, stride = BLOCKS[name]
    block = block(engine)
    channels = {"bottleneck": 4, "inception": 4, "dense": 3}.get(name, 1)
    net = engine.Sequential(block, engine.Conv2d(channels, 1, 3, padding=1)).double().eval()
    summary = models.summary(net, (1, 1, 33, 33))
    assert summary[-1].receptive_field == size + 2 * stride
    assert field_by_gradients(net, 33, engine) == size + 2 * stride


def test_receptive_field_of_other_shapes():
    net = nn.Sequential(nn.Conv2d(1, 1, (3, 1)), nn.MaxPool2d((1, 2)), nn.AdaptiveAvgPool2d(1))
    fields = [row.receptive_field for row in models.summary(net, (1, 1, 10, 8))]
    assert fields == [(3, 1), (3, 2), (10, 8)]
    sequence = nn.Sequential(nn.Conv1d(1, 1, 5), nn.AvgPool1d(2), nn.ConvTranspose1d(1, 1, 2))
    assert [r.receptive_field for r in models.summary(sequence, (1, 1, 20))] == [5, 6, None]


# ---- slim forms and errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "settings", "side"),
    [
        (models.AlexNet, {"width": 0.25}, 28),
        (models.AlexNet, {"width": 0.25}, 96),
        (models.ZFNet, {"width": 0.25}, 28),
        (models.vgg11, {"width": 0.25, "batch_norm": True}, 96),
        (models.vgg19, {"width": 0.25}, 28),
        (models.GoogLeNet, {"width": 0.25}, 28),
        (models.resnet18, {"width": 0.25}, 96),
        (models.resnet50, {"width": 0.25}, 28),
        (models.DenseNet, {"growth_rate": 8, "block_config": (4, 4, 4)}, 28),
        (models.MobileNetV2, {"width_mult": 0.25}, 28),
    ],
)
def test_slim_networks_take_small_images(network, settings, side):
    with torch.device("meta"):
        net = network(num_classes=7, in_channels=1, small_input=True, nn=torch.nn, **settings)
        summary = models.summary(net, (4, 1, side, side))
    assert summary[-1].output_shape == (4, 7)
    assert summary.parameters < 6e6
    convolutions = [row for row in summary if row.type == "Conv2d"]
    assert convolutions[0].output_shape[-1] == side  # nothing is lost at the door
    assert min(row.output_shape[-1] for row in convolutions) >= 2


def test_plain_and_residual_networks_of_one_depth_have_one_size():
    plain, option_a, option_b = (
        models.count_parameters(models.CifarResNet(20, shortcut=s)) for s in (None, "A", "B")
    )
    assert plain == option_a
    assert option_b == option_a + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


def test_option_a_is_a_shortcut_without_parameters():
    block = models.BasicBlock(2, 3, stride=2, shortcut="A").double().eval()
    for name in ("bn1", "bn2"):
        nn.init.zeros_(getattr(block, name).weight)  # only the shortcut is left
    x = np.abs(h.draw(0, (1, 2, 5, 5), np.float64))
    y = block(x).data
    np.testing.assert_array_equal(y[:, :2], x[:, :, ::2, ::2])
    np.testing.assert_array_equal(y[:, 2], 0)


@pytest.mark.parametrize(
    ("network", "settings"),
    [(models.vgg19, {}), (models.GoogLeNet, {"form": "paper", "aux_logits": False})],
)
def test_deep_networks_without_normalisation_start_well(network, settings):
    """He's rule keeps the size of the signal: logits are neither lost nor blown up."""
    dlnotes.manual_seed(0)
    net = network(width=0.25, small_input=True, **settings).eval()
    assert 0.03 < net(h.draw(0, (4, 3, 32, 32), np.float32)).data.std() < 30


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: models.VGG(12), ValueError, "depth must be one of 11, 13, 16, 19, got 12"),
        (lambda: models.VGGFeatures((), 16), ValueError, "layers must name a layer or more"),
        (lambda: models.VGGFeatures(("pool1",), 7), ValueError, "depth must be one of"),
        (lambda: models.VGGFeatures(("pool1",), pool="l2"), ValueError, "pool must be one of"),
        (lambda: models.CifarResNet(21), ValueError, r"depth must be 6n \+ 2"),
        (lambda: models.CifarResNet(8, shortcut="C"), ValueError, "shortcut must be one of"),
        (lambda: models.GoogLeNet(form="caffe"), ValueError, "form must be one of"),
        (lambda: models.LeNet5(activation="sin"), ValueError, "activation must be one of"),
        (lambda: models.LeNet5(pool="min"), ValueError, "pool must be one of"),
        (lambda: models.LeNet5(image_size=11), ValueError, "image_size must be at least 12"),
        (lambda: models.LeNet5(width=0), ValueError, "width must be above 0, got 0"),
        (lambda: models.MLP((3,)), ValueError, "sizes must hold two numbers or more"),
        (lambda: models.MLP((3, 2), normalization="l1"), ValueError, "normalization must be one"),
    ],
)
def test_bad_arguments(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
