"""dlnotes.cuda.nn and optim against torch's own, step by step, on the CPU engine and on a GPU."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_helpers import each_device  # noqa: F401  (runs the tests on each device)
from cuda_torch_helpers import TF, assert_close, draw, f32, f64, integers, noise, visible

from dlnotes import models, train
from dlnotes.cuda import functional as F
from dlnotes.cuda import nn, optim

NETWORKS = {
    "mlp": (models.MLP, {"sizes": (12, 7, 6, 3), "activation": "elu"}, (4, 3, 2, 2), 3),
    "mlp, layer": (models.MLP, {"sizes": (5, 7, 3), "normalization": "layer"}, (6, 5), 3),
    "lenet": (models.LeNet5, {"image_size": 12}, (4, 1, 12, 12), 10),
    "lenet, relu": (
        models.LeNet5,
        {"activation": "relu", "pool": "max", "width": 0.5, "num_classes": 3},
        (4, 1, 28, 28),
        3,
    ),
}
NETWORKS |= {
    "mlp, batch": (models.MLP, {"sizes": (5, 7, 3), "normalization": "batch"}, (6, 5), 3),
    "cifar resnet": (models.CifarResNet, {"depth": 8, "width": 0.25}, (3, 3, 8, 8), 10),
}
# Forward alone: they are deep, and made of the same layers.
DEEP = {
    "alexnet": (models.AlexNet, {"width": 0.05, "small_input": True}, (2, 3, 28, 28)),
    "zfnet": (models.ZFNet, {"width": 0.05, "small_input": True}, (2, 3, 28, 28)),
    "vgg": (
        models.vgg13,
        {"width": 0.05, "small_input": True, "batch_norm": True},
        (2, 3, 32, 32),
    ),
    "resnet18": (models.resnet18, {"width": 0.05, "small_input": True}, (2, 3, 16, 16)),
    "densenet": (
        models.DenseNet,
        {"growth_rate": 3, "block_config": (2, 3), "num_init_features": 6},
        (2, 3, 32, 32),
    ),
    "mobilenet": (models.MobileNetV2, {"width_mult": 0.1, "small_input": True}, (2, 3, 16, 16)),
}
SEQUENCES = {
    "gpt": lambda nn: models.GPT(11, max_len=6, d_model=8, nhead=2, num_layers=1, nn=nn),
    "bert": lambda nn: models.BERT(
        11, max_len=6, d_model=8, nhead=2, num_layers=1, dropout=0.0, nn=nn
    ),
    "lstm": lambda nn: LanguageModel(nn, "LSTM"),
    "gru": lambda nn: LanguageModel(nn, "GRU"),
}


class LanguageModel(torch.nn.Module):
    def __init__(self, nn, kind):
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        settings = {"num_layers": 2, "bidirectional": True, "batch_first": True}
        self.rnn = getattr(nn, kind)(5, 4, **settings)
        self.fc = nn.Linear(8, 11)

    def forward(self, tokens):
        return self.fc(self.rnn(self.embedding(tokens))[0])


OPTIMIZERS = {
    "SGD": (torch.optim.SGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "Adam": (optim.Adam, torch.optim.Adam, {"lr": 1e-3, "eps": 1e-4, "weight_decay": 1e-3}),
}


def pair(network, settings, dtype, device):
    """Return the network on this book's kernels and on torch's, with the same weights."""
    torch.manual_seed(0)
    ours, theirs = (network(**settings, nn=engine).to(device, dtype) for engine in (nn, torch.nn))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    return ours, theirs


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_torchs_step_by_step(name, optimizer, device):
    network, settings, shape, classes = NETWORKS[name]
    ours, theirs = pair(network, settings, f64, device)
    Ours, Theirs, options = OPTIMIZERS[optimizer]
    mine, torchs = Ours(ours.parameters(), **options), Theirs(theirs.parameters(), **options)
    for step in range(3):
        x = draw(step, *shape, device=device).detach()
        y = integers(step, classes, shape[0], device=device)
        losses = F.cross_entropy(ours(x), y), TF.cross_entropy(theirs(x), y)
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
        for optimiser, loss in zip((mine, torchs), losses, strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for (key, value), expected in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10, msg=key)


@pytest.fixture(name="tensor_cores")
def skip_without_tensor_cores(device):
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("tensor cores multiply bfloat16 from sm_80 on")


@pytest.mark.usefixtures("tensor_cores")
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_mixed_precision_trains_as_torchs(activation, device):
    """Both round in the same places, from float32 sums that may differ in their last bits.

    A number that lies between two of bfloat16 may so be rounded the other way, by 2⁻⁸; that all
    numbers are would move a loss so far, and gradients, which pass five layers, a few times.
    """
    settings = {"image_size": 12, "activation": activation, "pool": "max", "num_classes": 3}
    networks = pair(models.LeNet5, settings, f32, device)
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1, momentum=0.9) for n in networks]
    x = draw(0, 8, 1, 12, 12, dtype=f32, device=device).detach()
    y = integers(0, 3, 8, device=device)
    losses = []
    for _ in range(6):
        outputs = []
        for f, network, optimizer in zip((F, TF), networks, optimizers, strict=True):
            with torch.autocast(x.device.type, dtype=torch.bfloat16):
                logits = network(x)
                loss = f.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            assert (logits.dtype, loss.dtype) == (torch.bfloat16, f32)
            assert {p.grad.dtype for p in network.parameters()} == {f32}
            outputs.append((loss.item(), [p.grad.clone() for p in network.parameters()]))
        (mine, gradients), (torchs, expected) = outputs
        assert mine == pytest.approx(torchs, rel=2**-8)
        for gradient, wanted in zip(gradients, expected, strict=True):
            assert float((gradient - wanted).norm()) <= 2**-6 * float(wanted.norm())
        losses.append(mine)
        for optimizer in optimizers:
            optimizer.step()
    assert {p.dtype for p in networks[0].parameters()} == {f32}
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.usefixtures("tensor_cores")
@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence_models_run_in_autocast(name, device):
    """Products alone round, by 2⁻⁸: a loss so far, gradients for each of several layers."""
    torch.manual_seed(0)
    network = SEQUENCES[name](nn).to(device, f32)
    tokens, target = (integers(i, 11, 3, 6, device=device) for i in range(2))
    results = []
    for enabled in (True, False):
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=enabled):
            loss = F.cross_entropy(network(tokens).flatten(0, 1), target.flatten())
        results.append((loss.item(), torch.autograd.grad(loss, list(network.parameters()))))
    (mine, gradients), (exact, expected) = results
    assert mine != exact
    assert mine == pytest.approx(exact, rel=2**-8)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert gradient.dtype == f32
        assert float((gradient - wanted).norm()) <= 2**-5 * float(wanted.norm()) + 1e-4


@pytest.mark.parametrize("name", DEEP)
def test_deep_networks_give_torchs_logits(name, device):
    network, settings, shape = DEEP[name]
    ours, theirs = pair(network, {**settings, "num_classes": 3}, f32, device)
    x = draw(0, *shape, dtype=f32, device=device).detach()
    with torch.no_grad():
        logits, expected = ours.eval()(x), theirs.eval()(x)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence_models_train_like_torchs(name, device):
    torch.manual_seed(0)
    ours, theirs = (SEQUENCES[name](engine).to(device, f64) for engine in (nn, torch.nn))
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    optimisers = (
        optim.Adam(ours.parameters(), eps=1e-4),
        torch.optim.Adam(theirs.parameters(), eps=1e-4),
    )
    for step in range(2):
        tokens, target = (integers(2 * step + i, 11, 3, 6, device=device) for i in range(2))
        losses = [
            f.cross_entropy(network(tokens).flatten(0, 1), target.flatten())
            for f, network in ((F, ours), (TF, theirs))
        ]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
        for optimiser, loss in zip(optimisers, losses, strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for (key, value), expected in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10, msg=key)


def test_every_layer_of_the_books_networks_is_there():
    used = set()
    for file in Path(models.__file__).parent.glob("*.py"):
        used |= set(re.findall(r"\bnn\.([A-Z]\w+)", file.read_text(encoding="utf-8")))
    assert {"Conv2d", "Embedding", "LayerNorm"} <= used
    assert [name for name in sorted(used) if not hasattr(nn, name)] == []


def test_networks_of_words_give_torchs_logits(device):
    words = [integers(i, 9, 2, n, device=device) for i, n in enumerate((9, 4))]
    textcnn = {"embedding_dim": 4, "filters": 3}
    for make, inputs in (
        (lambda engine: models.TextCNN(11, 3, **textcnn, nn=engine), words[:1]),
        (lambda engine: models.Seq2Seq(11, 9, nn=engine), words),
        (lambda engine: models.TransformerSeq2Seq(11, 9, 8, 2, 1, 16, nn=engine), words),
    ):
        ours, theirs = (make(engine).to(device, f64).eval() for engine in (nn, torch.nn))
        ours.load_state_dict(theirs.state_dict())
        assert_close(ours(*inputs), theirs(*inputs), f64)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("axes", [2, 3])
def test_recurrent_layers_keep_states(kind, axes, device):
    torch.manual_seed(0)
    settings = {"num_layers": 2, "dropout": 0.5, "dtype": f64, "device": device}
    ours, theirs = (getattr(engine, kind)(3, 4, **settings).eval() for engine in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    x = draw(0, *(5, 2, 3)[: 1 + (axes == 3)], 3, device=device).detach()
    y, states = ours(x)
    expected, wanted = theirs(x)
    assert_close(y, expected, f64)
    y, states = ours(x, states)
    expected, wanted = theirs(x, wanted)
    for mine, torchs in zip((y, *states), (expected, *wanted), strict=True):
        assert_close(mine, torchs, f64)
    with pytest.raises(ValueError, match="hx must have shape"):
        ours(x, (states[0][..., :3], states[1]) if kind == "LSTM" else states[..., :3])
    cell = getattr(nn, f"{kind}Cell")(3, 4, dtype=f64, device=device)
    torchs = getattr(torch.nn, f"{kind}Cell")(3, 4, dtype=f64, device=device)
    torchs.load_state_dict(cell.state_dict())
    for given in (x[0], x[0].reshape(-1, 3)[0]):
        mine, expected = cell(given), torchs(given)
        for a, b in zip(
            *((mine, expected) if kind == "LSTM" else ([mine], [expected])), strict=True
        ):
            assert_close(a, b, f64)


@pytest.mark.parametrize("need_weights", [False, True, "each"])
@pytest.mark.parametrize("masks", ["", "bool", "float", "padding", "both", "mixed", "each head"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention(batch_first, masks, need_weights, device):
    settings = {"kdim": 5, "vdim": 3} if masks == "" else {}
    settings |= {"batch_first": batch_first, "dtype": f64, "device": device}
    torch.manual_seed(0)
    ours, theirs = (engine.MultiheadAttention(8, 2, **settings) for engine in (nn, torch.nn))
    ours.load_state_dict(theirs.state_dict())
    shape = (
        (lambda length, e: (2, length, e)) if batch_first else (lambda length, e: (length, 2, e))
    )
    widths = (8, 5, 3) if masks == "" else (8, 8, 8)
    query, key, value = (
        draw(i, *shape(length, e), device=device)
        for i, (length, e) in enumerate(zip((3, 4, 4), widths, strict=True))
    )
    hidden = ~visible(3, 4, like=query)
    padding = ~visible(2, 4, like=query)
    given = {
        "": {},
        "bool": {"attn_mask": hidden},
        "float": {"attn_mask": noise(3, 4, like=query)},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": hidden, "key_padding_mask": padding},
        "mixed": {
            "attn_mask": noise(3, 4, like=query),
            "key_padding_mask": noise(2, 4, like=query),
        },
        "each head": {"attn_mask": ~visible(4, 3, 4, like=query)},
    }[masks]
    given |= {"need_weights": bool(need_weights), "average_attn_weights": need_weights != "each"}
    (y, weights), (expected, wanted) = (m(query, key, value, **given) for m in (ours, theirs))
    assert_close(y, expected, f64)
    assert (weights is None) == (wanted is None)
    if need_weights:
        assert_close(weights, wanted, f64)
    inputs = query, key, value
    gradients = (torch.autograd.grad(z.square().sum(), inputs) for z in (y, expected))
    for mine, torchs in zip(*gradients, strict=True):
        assert_close(mine, torchs, f64)


def test_attention_without_a_batch_and_with_dropout(device):
    torch.manual_seed(0)
    ours, theirs = (
        engine.MultiheadAttention(4, 2, 0.5, device=device) for engine in (nn, torch.nn)
    )
    ours.load_state_dict(theirs.state_dict())
    x = draw(0, 3, 4, dtype=f32, device=device)
    mask = torch.tensor([False, True, False], device=device)
    results = [m.eval()(x, x, x, key_padding_mask=mask) for m in (ours, theirs)]
    for mine, torchs in zip(*results, strict=True):
        assert_close(mine, torchs, f32)
    ours.train()
    assert not torch.equal(ours(x, x, x)[0], ours(x, x, x)[0])
    with pytest.raises(ValueError, match="add_zero_attn must be False"):
        nn.MultiheadAttention(4, 2, add_zero_attn=True)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
def test_transformer_layers_in_evaluation_too(kind, norm_first, device, monkeypatch):
    """In evaluation without gradients torch's layer would run one fused kernel of its own."""
    torch.manual_seed(0)
    settings = {"norm_first": norm_first, "batch_first": True, "dtype": f64, "device": device}
    layers = [getattr(engine, f"Transformer{kind}Layer") for engine in (nn, torch.nn)]
    ours, theirs = (layer(8, 2, 16, **settings).eval() for layer in layers)
    ours.load_state_dict(theirs.state_dict())
    x = draw(0, 2, 5, 8, device=device).detach()
    inputs = (x, x) if kind == "Decoder" else (x,)
    seen, right = [], F.run

    def watch(ladder, *inputs, **settings):
        seen.append(ladder)
        return right(ladder, *inputs, **settings)

    monkeypatch.setattr(F, "run", watch)
    with torch.no_grad():
        assert_close(ours(*inputs), theirs(*inputs), f64)
    assert {"linear", "layer_norm", "attention"} <= set(seen)


def test_layers_are_torchs_with_another_forward(device):
    layers = {
        "Linear": ((5, 3), {}, (2, 5)),
        "Conv2d": ((2, 4, 3), {"padding": 1, "padding_mode": "reflect", "stride": 2}, (1, 2, 7, 7)),
        "Conv1d": ((2, 4, 3), {"padding": 1, "padding_mode": "circular"}, (1, 2, 7)),
        "AdaptiveAvgPool2d": (((None, 3),), {}, (1, 2, 7, 7)),
        "ConvTranspose2d": ((2, 4, 3), {"stride": 2, "output_padding": 1}, (1, 2, 3, 4)),
        "MaxPool1d": ((3,), {"stride": 2, "padding": 1}, (1, 2, 7)),
        "AvgPool1d": ((2,), {"padding": 1}, (1, 2, 7)),
        "MaxPool2d": ((3,), {"stride": 2, "padding": 1}, (1, 2, 7, 7)),
        "AvgPool2d": ((2,), {}, (1, 2, 7, 7)),
        "LayerNorm": (((4, 3),), {}, (2, 4, 3)),
        "GroupNorm": ((2, 4), {}, (2, 4, 3)),
        "InstanceNorm2d": ((3,), {"affine": True}, (2, 3, 4, 5)),
        "LocalResponseNorm": ((5,), {"k": 2.0}, (2, 7, 4, 3)),
        "RMSNorm": (((4, 3),), {}, (2, 4, 3)),
        "BatchNorm1d": ((4,), {"momentum": None}, (3, 4)),
        "BatchNorm2d": ((2,), {"track_running_stats": False}, (3, 2, 4, 4)),
        "Softmax": ((1,), {}, (2, 5)),
    }
    for name, (arguments, settings, shape) in layers.items():
        torch.manual_seed(0)
        ours = getattr(nn, name)(*arguments, **settings).to(device)
        torch.manual_seed(0)
        theirs = getattr(torch.nn, name)(*arguments, **settings).to(device)
        assert isinstance(ours, type(theirs))
        assert repr(ours) == repr(theirs)
        x = draw(0, *shape, dtype=f32, device=device)
        assert_close(ours(x), theirs(x), f32)
    table, ids = nn.Embedding(7, 3, padding_idx=2, device=device), integers(0, 7, 4, device=device)
    assert torch.equal(table(ids), table.weight[ids])
    x, y = draw(0, 4, 5, dtype=f32, device=device), integers(0, 5, 4, device=device)
    assert_close(nn.CrossEntropyLoss()(x, y), TF.cross_entropy(x, y), f32)


def test_instance_norm_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="track_running_stats must be False"):
        nn.InstanceNorm2d(2, track_running_stats=True)(torch.ones(1, 2, 3, 3))
    with pytest.raises(ValueError, match="more than one value for each sample and channel"):
        nn.InstanceNorm2d(2)(torch.ones(1, 2, 1, 1))


def test_no_layer_of_torch_computes_unawares():
    """All that is passed through works entry by entry, holds other layers, or computes nothing."""
    for name in nn.FROM_TORCH:
        assert getattr(nn, name) is getattr(torch.nn, name)
    for name in F.FROM_TORCH:
        assert getattr(F, name) is getattr(torch.nn.functional, name)
    assert not {"Linear", "Conv2d", "LayerNorm", "Conv1d", "LSTM"} & set(nn.FROM_TORCH)
    network = models.LeNet5(nn=nn)
    for module in network.modules():
        if list(module.parameters(recurse=False)):
            assert type(module).__module__ == "dlnotes.cuda.nn"


def test_adam_goes_on_from_torchs_state(device):
    start, gradients = draw(0, 5, 4, device=device), [draw(i, 5, 4, device=device) for i in (1, 2)]
    results = []
    for first, second in ((torch.optim.Adam, optim.Adam), (optim.Adam, torch.optim.Adam)):
        p = start.detach().clone().requires_grad_()
        before = first([p], lr=0.1)
        p.grad = gradients[0].detach()
        before.step()
        after = second([p], lr=0.5)
        after.load_state_dict(before.state_dict())
        p.grad = gradients[1].detach().T.contiguous().T
        version = p._version
        assert after.step(lambda: 5) == 5
        assert p._version > version
        results.append(p)
    assert_close(results[0].detach(), results[1].detach(), f64)
    assert not torch.equal(results[0], start)


def test_adam_refuses_what_a_loaded_state_asks_for(device):
    p = draw(0, 3, device=device)
    ours, theirs = optim.Adam([p]), torch.optim.Adam([p], amsgrad=True)
    ours.load_state_dict(theirs.state_dict())
    with pytest.raises(ValueError, match="amsgrad must be False"):
        ours.step()


def test_adam_of_transposed_parameters(device):
    ours, theirs = (draw(0, 5, 4, device=device, layout="transposed") for _ in range(2))
    assert not ours.is_contiguous()
    for p, Optimizer in ((ours, optim.Adam), (theirs, torch.optim.Adam)):
        optimiser = Optimizer([p], lr=0.1)
        for seed in (1, 2):
            p.grad = draw(seed, 5, 4, device=device).detach()
            optimiser.step()
    assert_close(ours.detach(), theirs.detach(), f64)


def test_the_books_loop_trains_on_kernels(device):
    """Points inside and outside a ring: loss by loss as torch, and learnt in the end."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((64, 2)).astype(np.float32)
    labels = (np.hypot(*points.T) > 1.1).astype(np.int64)
    batches = [(points[i : i + 16], labels[i : i + 16]) for i in range(0, 64, 16)]
    histories = []
    for network, loss, Optimizer in zip(
        pair(models.MLP, {"sizes": (2, 16, 2), "activation": "tanh"}, f32, device),
        (nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()),
        (optim.Adam, torch.optim.Adam),
        strict=True,
    ):
        optimizer = Optimizer(network.parameters(), lr=0.05)
        settings = {"loss_fn": loss, "optimizer": optimizer, "epochs": 12, "progress": False}
        histories.append(train.fit(network, batches, **settings)["train_loss"])
    np.testing.assert_allclose(*histories, rtol=1e-3)
    assert histories[0][-1] < 0.3 < histories[0][0]
