"""Networks of the chapters, each written once and run on any engine.

A network takes the engine as `nn`: `LeNet5()` is a network of `dlnotes.nn`, `LeNet5(nn=torch.nn)`
the same one of torch, with the same names, so that `state_dict` goes both ways. Names in capitals
are classes; those in small letters return a class at the sizes of its paper. `width` and
`small_input` make slim ones that train on small images in seconds. Your own: a subclass of
`Network`.

Arguments that many have: num_classes, how many logits (no softmax, no sigmoid) come out;
in_channels, of the images; `dropout`, 0 … 1, with which probability units are dropped in training,
just before or after hidden linear layers where nothing else is said; `width`, above 0; vocabulary,
how many words (or characters) there are; padding_idx, the number that stands for no word, whose
vector gets no gradient. Images are floats of the parameters' dtype, float32 when a network is made;
words are integers, (n, length).

In each: TypeError for a setting of the wrong kind, ValueError for one out of range or an unknown
name, partly from the engine's layers, which also refuse inputs that do not fit: `dlnotes.nn` with
TypeError (dtypes) and ValueError (shapes), torch with errors of its own. What a network costs,
parameters and multiply-accumulates, `summary(net, shape)` tells.
"""

from dlnotes.models._engine import Network
from dlnotes.models.alexnet import AlexNet, AlexNetPaper, ZFNet
from dlnotes.models.densenet import DenseNet, densenet121
from dlnotes.models.detection import YOLO, FastRCNNHead, RPNHead
from dlnotes.models.faces import EmbeddingNet, SiameseNetwork
from dlnotes.models.generative import (
    VAE,
    Autoencoder,
    ConvAutoencoder,
    ConvVAE,
    DCGANDiscriminator,
    DCGANGenerator,
    VAEOutputs,
)
from dlnotes.models.googlenet import GoogLeNet, GoogLeNetOutputs, Inception
from dlnotes.models.lenet import LeNet5, LeNet5Paper
from dlnotes.models.mlp import MLP
from dlnotes.models.mobilenet import InvertedResidual, MobileNetV2
from dlnotes.models.resnet import (
    BasicBlock,
    Bottleneck,
    CifarResNet,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
)
from dlnotes.models.sequence import (
    AdditiveAttention,
    DotAttention,
    RNNLanguageModel,
    Seq2Seq,
    SequenceClassifier,
    SequenceTagger,
)
from dlnotes.models.style import TransformNet
from dlnotes.models.summary import Layer, Summary, count_parameters, receptive_field, summary
from dlnotes.models.text import TextCNN
from dlnotes.models.transformer import BERT, GPT, TransformerSeq2Seq
from dlnotes.models.vgg import VGG, VGGFeatures, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "BERT",
    "GPT",
    "MLP",
    "VAE",
    "VGG",
    "YOLO",
    "AdditiveAttention",
    "AlexNet",
    "AlexNetPaper",
    "Autoencoder",
    "BasicBlock",
    "Bottleneck",
    "CifarResNet",
    "ConvAutoencoder",
    "ConvVAE",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DenseNet",
    "DotAttention",
    "EmbeddingNet",
    "FastRCNNHead",
    "GoogLeNet",
    "GoogLeNetOutputs",
    "Inception",
    "InvertedResidual",
    "Layer",
    "LeNet5",
    "LeNet5Paper",
    "MobileNetV2",
    "Network",
    "RNNLanguageModel",
    "RPNHead",
    "ResNet",
    "Seq2Seq",
    "SequenceClassifier",
    "SequenceTagger",
    "SiameseNetwork",
    "Summary",
    "TextCNN",
    "TransformNet",
    "TransformerSeq2Seq",
    "VAEOutputs",
    "VGGFeatures",
    "ZFNet",
    "count_parameters",
    "densenet121",
    "receptive_field",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "summary",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
]
