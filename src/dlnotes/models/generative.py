"""Autoencoders, variational autoencoders and the generator and discriminator of DCGAN.

The output of decoders are logits: their sigmoid is the picture, and binary cross-entropy with
logits the loss; for other data take the logits as numbers, with squared errors.
"""

import itertools
import math
from types import ModuleType
from typing import Any, NamedTuple

from dlnotes import _validate, nn
from dlnotes.models import _engine
from dlnotes.models._engine import Network


class Autoencoder(Network):
    """Linear layers down to a code and back: (n, …) → the same shape.

    sizes: the number of inputs, of units in each layer of the encoder, and of the code; the decoder
    has the same sizes in reverse. With activation="identity" it is linear, and its best code spans
    the first principal components (Baldi and Hornik, 1989). (Hinton and Salakhutdinov, 2006.)
    activation: a name, as in `MLP`. ValueError for fewer than two sizes.
    """

    def __init__(
        self,
        sizes: tuple[int, ...] | list[int] = (784, 128, 32),
        activation: str = "relu",
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.encoder = dense(sizes, activation, nn)
        self.decoder = dense(sizes[::-1], activation, nn)

    def encode(self, x):
        """Return the code (n, sizes[-1])."""
        return self.encoder(x.flatten(1))

    def decode(self, code):
        """Return logits (n, sizes[0])."""
        return self.decoder(code)

    def forward(self, x):
        """Return the logits of the reconstruction, in the shape of x."""
        return self.decode(self.encode(x)).reshape(x.shape)


class ConvAutoencoder(Network):
    """Convolutions of stride 2 down to a code, and back by transposed ones: images → same shape.

    image_size: the side of the images, a multiple of 4; `channels`: those of the first layer.
    code_size: numbers of the code. ValueError for another image_size.
    """

    def __init__(
        self,
        code_size: int = 32,
        in_channels: int = 1,
        image_size: int = 28,
        channels: int = 16,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.encoder = conv_encoder(code_size, in_channels, image_size, channels, nn)
        self.decoder = conv_decoder(code_size, in_channels, image_size, channels, nn)

    def encode(self, x):
        """Return the code (n, code_size)."""
        return self.encoder(x)

    def decode(self, code):
        """Return the logits of images."""
        return self.decoder(code)

    def forward(self, x):
        """Return the logits of the reconstruction."""
        return self.decode(self.encode(x))


class VAEOutputs(NamedTuple):
    """What a VAE gives: logits of the reconstruction, mean and log-variance of the code.

    Logits in the shape of the input, mean and log_variance (n, code size).
    """

    logits: Any
    mean: Any
    log_variance: Any


class VAE(Network):
    """A variational autoencoder (Kingma and Welling, 2014): (n, …) → `VAEOutputs`.

    The encoder gives a normal distribution of the code, N(mean, e^log_variance); a code drawn from
    it, mean + e^(log_variance / 2) noise, goes to the decoder. sizes as in `Autoencoder`; the
    paper's has one hidden layer of 500 tanh units. The loss is the reconstruction's plus
    KL(code's distribution, N(0, 1)) = Σ (mean² + e^log_variance - log_variance - 1) / 2.
    """

    def __init__(
        self,
        sizes: tuple[int, ...] | list[int] = (784, 256, 16),
        activation: str = "relu",
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.code_size = sizes[-1]
        self.encoder = dense((*sizes[:-1], 2 * sizes[-1]), activation, nn)
        self.decoder = dense(sizes[::-1], activation, nn)

    def encode(self, x):
        """Return mean and log-variance of the code, (n, code size) each."""
        both = self.encoder(x.flatten(1))
        return both[:, : self.code_size], both[:, self.code_size :]

    def decode(self, code):
        """Return logits (n, sizes[0])."""
        return self.decoder(code)

    def forward(self, x, noise=None):
        """Return `VAEOutputs`; the noise is drawn from the engine's generator if not given."""
        mean, log_variance = self.encode(x)
        code = reparameterize(mean, log_variance, noise)
        return VAEOutputs(self.decode(code).reshape(x.shape), mean, log_variance)


class ConvVAE(Network):
    """`VAE` with the layers of `ConvAutoencoder`: images (n, c, side, side) → `VAEOutputs`.

    Arguments as there.
    """

    def __init__(
        self,
        code_size: int = 16,
        in_channels: int = 1,
        image_size: int = 28,
        channels: int = 16,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        self.code_size = code_size
        self.encoder = conv_encoder(2 * code_size, in_channels, image_size, channels, nn)
        self.decoder = conv_decoder(code_size, in_channels, image_size, channels, nn)

    def encode(self, x):
        """Return mean and log-variance of the code, (n, code_size) each."""
        both = self.encoder(x)
        return both[:, : self.code_size], both[:, self.code_size :]

    def decode(self, code):
        """Return the logits of images."""
        return self.decoder(code)

    def forward(self, x, noise=None):
        """Return `VAEOutputs`; the noise is drawn from the engine's generator if not given."""
        mean, log_variance = self.encode(x)
        code = reparameterize(mean, log_variance, noise)
        return VAEOutputs(self.decode(code), mean, log_variance)


class DCGANGenerator(Network):
    """Noise (n, latent) → images (n, out_channels, side, side) between -1 and 1.

    Transposed convolutions, each but the last with batch norm and ReLU, at the end tanh (Radford,
    Metz and Chintala, 2016). The first makes image_size / 2ᵏ pixels, at least 4, each of the k
    others doubles them: 4 → 64, or 7 → 28. `channels` are those of the last but one; each layer
    before has twice as many. 3,576,704 parameters at the defaults (the paper has channels=128).
    Weights start with deviation 0.02.
    latent: the length of the noise. ValueError for an image_size that is not 4, 5, 6 or 7 times a
    power of 2.
    """

    def __init__(
        self,
        latent: int = 100,
        out_channels: int = 3,
        image_size: int = 64,
        channels: int = 64,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        first, doublings = halvings(image_size)
        widths = [channels * 2**i for i in reversed(range(doublings))]
        self.main = nn.Sequential()

        def add(in_channels, width, *window):
            self.main.append(nn.ConvTranspose2d(in_channels, width, *window, bias=False))
            self.main.append(nn.BatchNorm2d(width))
            self.main.append(nn.ReLU())

        add(latent, widths[0], first)
        for width, following in itertools.pairwise(widths):
            add(width, following, 4, 2, 1)
        self.main.append(nn.ConvTranspose2d(channels, out_channels, 4, 2, 1, bias=False))
        self.main.append(nn.Tanh())
        dcgan_init(self)

    def forward(self, noise):
        """Return images."""
        return self.main(noise.reshape(*noise.shape[:2], 1, 1))


class DCGANDiscriminator(Network):
    """Images (n, in_channels, side, side) → logits (n,) of being real.

    The generator in reverse: convolutions of stride 2 with batch norm (but for the first) and leaky
    ReLU. 2,765,568 parameters at the defaults.
    image_size as in the generator; channels: those of the first convolution, doubled by each
    further one.
    """

    def __init__(
        self,
        in_channels: int = 3,
        image_size: int = 64,
        channels: int = 64,
        *,
        nn: ModuleType = nn,
    ):
        super().__init__()
        last, count = halvings(image_size)
        widths = [channels * 2**i for i in range(count)]
        self.main = nn.Sequential(
            nn.Conv2d(in_channels, channels, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)
        )
        for width, following in itertools.pairwise(widths):
            self.main.append(nn.Conv2d(width, following, 4, 2, 1, bias=False))
            self.main.append(nn.BatchNorm2d(following))
            self.main.append(nn.LeakyReLU(0.2))
        self.main.append(nn.Conv2d(widths[-1], 1, last, bias=False))
        dcgan_init(self)

    def forward(self, images):
        """Return one logit for each image."""
        return self.main(images).flatten()


# ---- pieces --------------------------------------------------------------------------------------


def dense(sizes, activation: str, nn: ModuleType):
    """Return linear layers with an activation between them."""
    if len(sizes) < 2:
        raise ValueError(f"sizes must hold two numbers or more, got {tuple(sizes)}")
    layers = nn.Sequential()
    for size, following in itertools.pairwise(sizes):
        if len(layers):
            layers.append(_engine.activation(activation, nn))
        layers.append(nn.Linear(size, following))
    return layers


def conv_encoder(outputs: int, in_channels: int, image_size: int, channels: int, nn: ModuleType):
    """Return layers that turn images into `outputs` numbers."""
    side = _quarter(image_size)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * side * side, outputs),
    )


def conv_decoder(inputs: int, out_channels: int, image_size: int, channels: int, nn: ModuleType):
    """Return layers that turn numbers into the logits of images."""
    side = _quarter(image_size)
    return nn.Sequential(
        nn.Linear(inputs, 2 * channels * side * side),
        nn.ReLU(),
        Unflatten(2 * channels, side, nn=nn),
        nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, out_channels, 4, 2, 1),
    )


class Unflatten(Network):
    """Turn (n, channels · side · side) into images."""

    def __init__(self, channels: int, side: int, *, nn: ModuleType = nn):
        super().__init__()
        self.shape = (channels, side, side)

    def forward(self, x):
        """Return the images."""
        return x.reshape(x.shape[0], *self.shape)


def reparameterize(mean, log_variance, noise=None):
    """Return mean + e^(log_variance / 2) noise, through which gradients reach both."""
    noise = _engine.normal_like(mean) if noise is None else noise
    return mean + (0.5 * log_variance).exp() * noise


def halvings(image_size: int) -> tuple[int, int]:
    """Return (side, k) with side · 2ᵏ = image_size, 4 ≤ side < 8 and k ≥ 1."""
    count = int(math.log2(_validate.integer("image_size", image_size, low=8) / 4))
    side, rest = divmod(image_size, 2**count)
    if rest:
        raise ValueError(f"image_size must be 4, 5, 6 or 7 times a power of 2, got {image_size}")
    return side, count


def _quarter(image_size: int) -> int:
    if _validate.integer("image_size", image_size, low=4) % 4:
        raise ValueError(f"image_size must be a multiple of 4, got {image_size}")
    return image_size // 4


def dcgan_init(network) -> None:
    """Draw weights with deviation 0.02: of convolutions around 0, of batch norms around 1."""
    nn = network.nn
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
