"""Generative, detecting, verifying and painting networks, on both engines."""

import core_helpers as h
import numpy as np
import pytest
import torch

import dlnotes
from dlnotes import check, models, nn, optim
from dlnotes.autograd import Tensor, tensor

# name: network, settings, shapes of the inputs
NETWORKS = {
    "autoencoder": (models.Autoencoder, {"sizes": (12, 5, 2), "activation": "tanh"}, [(3, 3, 4)]),
    "autoencoder, linear": (
        models.Autoencoder,
        {"sizes": (12, 5, 2), "activation": "identity"},
        [(3, 12)],
    ),
    "autoencoder, conv": (
        models.ConvAutoencoder,
        {"code_size": 3, "in_channels": 2, "image_size": 8, "channels": 2},
        [(3, 2, 8, 8)],
    ),
    "vae": (models.VAE, {"sizes": (12, 5, 2)}, [(3, 3, 4), (3, 2)]),
    "vae, conv": (
        models.ConvVAE,
        {"code_size": 3, "image_size": 8, "channels": 2},
        [(3, 1, 8, 8), (3, 3)],
    ),
    "generator": (
        models.DCGANGenerator,
        {"latent": 5, "out_channels": 1, "image_size": 28, "channels": 2},
        [(3, 5)],
    ),
    "discriminator": (
        models.DCGANDiscriminator,
        {"in_channels": 1, "image_size": 28, "channels": 2},
        [(3, 1, 28, 28)],
    ),
    "yolo": (
        models.YOLO,
        {"num_classes": 3, "anchors": 2, "stride": 4, "width": 0.1},
        [(2, 3, 8, 16)],
    ),
    "rpn": (models.RPNHead, {"in_channels": 4, "anchors": 3}, [(2, 4, 5, 6)]),
    "fast r-cnn": (
        models.FastRCNNHead,
        {"in_channels": 2, "num_classes": 3, "size": 3, "hidden": 6},
        [(4, 2, 3, 3)],
    ),
    "embedding": (models.EmbeddingNet, {"embedding_dim": 4, "width": 0.1}, [(3, 3, 16, 16)]),
    "siamese": (models.SiameseNetwork, {}, [(3, 2, 16, 16), (3, 2, 16, 16)]),
    "siamese, difference": (
        models.SiameseNetwork,
        {"compare": "difference"},
        [(3, 2, 16, 16), (3, 2, 16, 16)],
    ),
    "siamese, chi-square": (
        models.SiameseNetwork,
        {"compare": "chi_square"},
        [(3, 2, 16, 16), (3, 2, 16, 16)],
    ),
    "transform": (models.TransformNet, {"blocks": 2, "width": 0.1}, [(1, 3, 12, 8)]),
    "transform, batch": (
        models.TransformNet,
        {"blocks": 1, "width": 0.1, "norm": "batch"},
        [(2, 3, 8, 8)],
    ),
}
ENGINES = pytest.mark.parametrize("engine", [nn, torch.nn])


def network(name, engine, dtype=np.float64):
    make, settings, _ = NETWORKS[name]
    if name.startswith("siamese"):
        embedding = models.EmbeddingNet(4, 2, 0.1, nn=engine)
        settings = {**settings, "embedding": embedding}
    net = make(nn=engine, **settings)
    return net.double() if dtype == np.float64 else net


def pair(name, dtype):
    torch.manual_seed(0)
    ours, theirs = network(name, nn, dtype), network(name, torch.nn, dtype)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


def outputs(net, *inputs):
    output = net(*inputs) if isinstance(net, nn.Module) else net(*map(torch.tensor, inputs))
    return list(output) if isinstance(output, tuple) else [output]


def given(name, seed, dtype):
    return [h.draw(seed + i, shape, dtype) for i, shape in enumerate(NETWORKS[name][2])]


@pytest.mark.parametrize("name", NETWORKS)
@h.shapes_unchecked()  # they are checked in float32; here they take most of the time
def test_training_as_on_torch(name):
    """Values, weights and running statistics over two steps each of SGD with momentum and Adam."""
    ours, theirs = pair(name, np.float64)
    for optimizer, settings in (("SGD", {"lr": 0.01, "momentum": 0.9}), ("Adam", {"eps": 1e-4})):
        mine = getattr(optim, optimizer)(ours.parameters(), **settings)
        torchs = getattr(torch.optim, optimizer)(theirs.parameters(), **settings)
        for step in range(2):
            inputs = given(name, 10 * step, np.float64)
            found, expected = outputs(ours, *inputs), outputs(theirs, *inputs)
            targets = [h.draw(i, y.shape, np.float64) for i, y in enumerate(found)]
            loss = sum(nn.functional.mse_loss(y, t) for y, t in zip(found, targets, strict=True))
            torch_loss = sum(
                torch.nn.functional.mse_loss(y, torch.tensor(t))
                for y, t in zip(expected, targets, strict=True)
            )
            assert loss.item() == pytest.approx(torch_loss.item(), rel=1e-9)
            mine.zero_grad(), torchs.zero_grad()
            loss.backward(), torch_loss.backward()
            mine.step(), torchs.step()
    state = ours.state_dict()
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(state[key], value, rtol=1e-7, atol=1e-9, err_msg=key)
    ours.eval(), theirs.eval()
    inputs = given(name, 50, np.float64)
    for y, expected in zip(outputs(ours, *inputs), outputs(theirs, *inputs), strict=True):
        np.testing.assert_allclose(y.data, expected.detach(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_float32(name):
    ours, theirs = pair(name, np.float32)
    inputs = given(name, 0, np.float32)
    for y, expected in zip(outputs(ours, *inputs), outputs(theirs, *inputs), strict=True):
        assert y.dtype == np.float32
        scale = max(1.0, float(expected.detach().abs().max()))
        np.testing.assert_allclose(y.data, expected.detach(), rtol=0, atol=1e-4 * scale)


# ---- sizes ---------------------------------------------------------------------------------------


def test_sizes_as_published():
    """DCGAN as in PyTorch's tutorial, the transformation network as in PyTorch's example."""
    with torch.device("meta"):
        for make, parameters in (
            (models.DCGANGenerator, 3_576_704),
            (models.DCGANDiscriminator, 2_765_568),
            (models.TransformNet, 1_679_235),
        ):
            assert models.count_parameters(make(nn=torch.nn)) == parameters


@pytest.mark.parametrize("side", [8, 16, 28, 32, 40, 48, 64])
def test_generator_and_discriminator_fit_together(side):
    with torch.device("meta"):
        generator = models.DCGANGenerator(7, 1, side, 2, nn=torch.nn)
        discriminator = models.DCGANDiscriminator(1, side, 2, nn=torch.nn)
        images = generator(torch.zeros(3, 7))
    assert images.shape == (3, 1, side, side)
    assert discriminator(images).shape == (3,)


def test_names_as_in_torchvision():
    rpn = [f"{name}.{part}" for name in ("conv.0.0", "cls_logits", "bbox_pred")
           for part in ("weight", "bias")]  # fmt: skip
    assert list(models.RPNHead(4).state_dict()) == rpn
    head = [f"{name}.{part}" for name in ("fc6", "fc7", "cls_score", "bbox_pred")
            for part in ("weight", "bias")]  # fmt: skip
    assert list(models.FastRCNNHead(2, 3, 2, 4).state_dict()) == head


# ---- generative ----------------------------------------------------------------------------------


@h.shapes_unchecked()  # they are checked in float32; here they take most of the time
def test_a_linear_autoencoder_finds_the_principal_components():
    """Trained to the end, it loses what PCA of the same size loses."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 6)) * [4, 3, 1, 0.5, 0.3, 0.1]
    x -= x.mean(0)
    dlnotes.manual_seed(0)
    net = models.Autoencoder((6, 2), "identity").double()
    optimizer = optim.Adam(net.parameters(), lr=0.05)
    for _ in range(400):
        loss = nn.functional.mse_loss(net(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    lost = (np.linalg.svd(x, compute_uv=False)[2:] ** 2).sum() / x.size
    assert lost * (1 - 1e-9) <= loss.item() < 1.01 * lost


@ENGINES
@pytest.mark.parametrize("name", ["vae", "vae, conv"])
def test_a_vae_draws_its_code(name, engine):
    dlnotes.manual_seed(0)
    torch.manual_seed(0)
    net = network(name, engine)
    x, noise = given(name, 0, np.float64)
    x, noise = map(tensor if engine is nn else torch.tensor, (x, noise))
    output = net(x, noise)
    assert isinstance(output, models.VAEOutputs)
    assert output.logits.shape == x.shape
    mean, log_variance = net.encode(x)
    code = mean.detach().numpy() + np.exp(log_variance.detach().numpy() / 2) * noise.numpy()
    code = Tensor(code) if engine is nn else torch.tensor(code)
    expected = net.decode(code).reshape(x.shape).detach().numpy()
    np.testing.assert_allclose(output.logits.detach().numpy(), expected, rtol=1e-12)
    one, other = (net(x).logits.detach().numpy() for _ in range(2))
    assert not np.array_equal(one, other)  # noise is drawn anew
    for seeded in (dlnotes.manual_seed, torch.manual_seed):
        seeded(3)
    one = net(x).logits.detach().numpy()
    dlnotes.manual_seed(3)
    torch.manual_seed(3)
    np.testing.assert_array_equal(net(x).logits.detach().numpy(), one)


def test_the_noise_of_a_vae_is_standard_normal():
    dlnotes.manual_seed(0)
    noise = models._engine.normal_like(Tensor(np.zeros((100, 200), np.float32)))
    assert noise.dtype == np.float32
    assert abs(noise.data.mean()) < 4 / np.sqrt(noise.data.size)
    assert abs(noise.data.var() - 1) < 4 * np.sqrt(2 / noise.data.size)


@ENGINES
def test_dcgan_starts_with_deviation_two_hundredths(engine):
    dlnotes.manual_seed(0)
    torch.manual_seed(0)
    net = models.DCGANGenerator(100, 3, 32, 16, nn=engine)
    weights = net.state_dict()["main.0.weight"]
    assert float(np.asarray(weights).std()) == pytest.approx(0.02, rel=0.05)
    x = h.draw(0, (2, 100), np.float32)
    images = net(x if engine is nn else torch.tensor(x))
    assert np.abs(images.detach().numpy()).max() <= 1


# ---- detection -----------------------------------------------------------------------------------


def test_each_cell_of_yolo_has_its_anchors():
    net = models.YOLO(3, anchors=2, stride=8, width=0.1).eval()
    x = h.draw(0, (2, 3, 16, 32), np.float32)
    y = net(x)
    assert y.shape == (2, 2, 4, 2, 8)
    flat = net.head(net.backbone(x)).data  # anchor a, number k: channel 8 a + k
    for anchor in range(2):
        np.testing.assert_array_equal(
            y.data[:, :, :, anchor], flat[:, 8 * anchor : 8 * anchor + 8].transpose(0, 2, 3, 1)
        )
    np.testing.assert_array_equal(net.head.bias.data.reshape(2, 8)[:, 4], -4)
    assert np.abs(np.delete(net.head.bias.data.reshape(2, 8), 4, axis=1)).max() == 0
    share = nn.functional.sigmoid(y[..., 4]).data
    assert share.max() < 0.1  # hardly any object is expected at the start


def test_a_detector_slides():
    """A picture moved by one cell has its outputs moved by one cell."""
    net = models.YOLO(2, stride=4, width=0.25).double().eval()
    x = np.zeros((1, 3, 40, 40))
    x[:, :, 14:26, 14:26] = h.draw(0, (3, 12, 12), np.float64)
    moved = np.roll(x, 4, axis=3)
    y, other = net(x).data, net(moved).data
    np.testing.assert_allclose(other[:, 3:7, 4:8], y[:, 3:7, 3:7], rtol=1e-9, atol=1e-12)
    assert np.abs(y[:, 3:7, 4:8] - y[:, 3:7, 3:7]).max() > 1e-4


# ---- verification --------------------------------------------------------------------------------


@ENGINES
def test_embeddings_have_length_one(engine):
    net = network("embedding", engine)
    x = given("embedding", 0, np.float64)[0]
    x = x if engine is nn else torch.tensor(x)
    vectors = net(x).detach().numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-9)
    net.normalize = False
    plain = net(x).detach().numpy()
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(plain / lengths, vectors, rtol=1e-9)


def test_siamese_networks_compare():
    x1, x2 = (h.draw(i, (3, 2, 16, 16), np.float64) for i in (0, 1))
    for name in ("siamese", "siamese, difference", "siamese, chi-square"):
        dlnotes.manual_seed(0)
        net = network(name, nn).eval()
        a, b = net.embedding(x1).data, net.embedding(x2).data
        y = net(x1, x2).data
        assert y.shape == (3,)
        np.testing.assert_allclose(net(x2, x1).data, y, rtol=1e-12)  # the order does not matter
        if name == "siamese":
            np.testing.assert_allclose(y, np.linalg.norm(a - b, axis=1), rtol=1e-9)
            np.testing.assert_allclose(net(x1, x1).data, 1e-6)
            continue
        weight, bias = net.fc.weight.data[0], net.fc.bias.data
        same = np.abs(a - b)
        if "chi" in name:
            a, b = np.maximum(a, 0), np.maximum(b, 0)
            same = (a - b) ** 2 / (a + b + 1e-6)
        np.testing.assert_allclose(y, same @ weight + bias, rtol=1e-9)


def test_equal_images_have_a_finite_gradient():
    net = network("siamese", nn)
    x = h.draw(0, (2, 2, 16, 16), np.float64)
    net(x, x).sum().backward()
    assert all(np.isfinite(p.grad).all() for p in net.parameters())


def test_unit_length_by_gradcheck():
    check.gradcheck(models.faces.unit_length, (h.draw(0, (3, 4), np.float64),))


# ---- style ---------------------------------------------------------------------------------------


@ENGINES
def test_painted_pictures_are_pictures(engine):
    net = network("transform", engine)
    x = np.abs(h.draw(0, (1, 3, 20, 12), np.float64))
    y = net(x if engine is nn else torch.tensor(x)).detach().numpy()
    assert y.shape == x.shape
    assert 0 < y.min() < y.max() < 1


@pytest.mark.parametrize("pool", ["max", "average"])
def test_gradients_reach_the_picture_through_vgg(pool):
    """What style transfer needs: the derivative of features of several layers, as on torch."""
    layers = ("relu1_1", "pool1", "conv2_1")
    ours = models.VGGFeatures(layers, pool=pool).double()
    theirs = models.VGGFeatures(layers, pool=pool, nn=torch.nn).double()
    theirs.load_state_dict(nn.to_torch(ours.state_dict()))
    x = tensor(h.draw(0, (1, 3, 8, 8), np.float64), requires_grad=True)
    torch_x = torch.tensor(x.data, requires_grad=True)
    sum((y * y).sum() for y in ours(x).values()).backward()
    sum((y * y).sum() for y in theirs(torch_x).values()).backward()
    np.testing.assert_allclose(x.grad, torch_x.grad, rtol=1e-9, atol=1e-12)
    assert list(ours(x)) == ["relu1_1", "pool1", "conv2_1"]


PICTURE = np.zeros((1, 3, 40, 40), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.Autoencoder((3,)), "sizes must hold two numbers or more"),
        (lambda: models.ConvAutoencoder(image_size=10), "image_size must be a multiple of 4"),
        (lambda: models.DCGANGenerator(image_size=36), "image_size must be 4, 5, 6 or 7 times a"),
        (lambda: models.DCGANDiscriminator(image_size=4), "image_size must be at least 8"),
        (lambda: models.YOLO(2, stride=12), "stride must be a power of 2, at least 2, got 12"),
        (lambda: models.SiameseNetwork(compare="cosine"), "compare must be one of"),
        (lambda: models.TransformNet("layer"), "norm must be one of"),
        (lambda: models.YOLO(2, width=0.1)(PICTURE), r"multiples of 16, got \(1, 3, 40, 40\)"),
        (lambda: models.YOLO(2, stride=8, width=0.1)(PICTURE[0]), r"multiples of 8, got \(3, 40,"),
        (
            lambda: models.TransformNet(width=0.1)(PICTURE[..., :30]),
            r"multiples of 4, got \(1, 3, 40, 30\)",
        ),
        (
            lambda: models.SiameseNetwork()(PICTURE, np.concatenate([PICTURE] * 2)),
            "x1 and x2 must be pairs, got 1 and 2 images",
        ),
    ],
)
def test_bad_arguments(call, message):
    with h.shapes_unchecked(), pytest.raises(ValueError, match=message):
        call()
