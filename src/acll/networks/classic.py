"""Small networks of the literature on lifelong learning, for small images, layer by layer.

The convolutional ones are made for images of 3 channels, as all encoders are before they are given
their own number. Their last pooling has a fixed size of output, which on 32x32 pixels is that of
the papers; so images may have any size that leaves something to pool.
"""

from itertools import pairwise

from torch import nn

from acll.networks.small import scaled

LENET = "lenet"
LENET_FEATURES = 84
CONV_SMALL = "conv_small"
CONV_SMALL_FEATURES = 512


def perceptron(inputs: int, hidden: list[int]) -> nn.Sequential:
    """Return a perceptron: images [N, C, H, W] → features [N, last of `hidden`].

    It has a linear layer and ReLU for each width of `hidden`; inputs: C·H·W.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for before, width in pairwise([inputs, *hidden]):
        layers += [nn.Linear(before, width), nn.ReLU()]
    return nn.Sequential(*layers)


def lenet(width: float = 1.0) -> nn.Sequential:
    """Return LeNet-5: images [N, 3, H, W] → features [N, 84].

    LeCun, Bottou, Bengio, Haffner 1998, as it is used today: ReLU and max pooling, all maps
    connected. width: factor of all numbers of channels and features.
    """
    first, second, inner, features = (scaled(own, width) for own in (6, 16, 120, LENET_FEATURES))
    return nn.Sequential(
        nn.Conv2d(3, first, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(5),
        nn.Flatten(),
        nn.Linear(second * 5 * 5, inner),
        nn.ReLU(),
        nn.Linear(inner, features),
        nn.ReLU(),
    )


def conv_small(width: float = 1.0) -> nn.Sequential:
    """Return the network for split CIFAR: images [N, 3, H, W] → features [N, 512].

    Zenke, Poole, Ganguli 2017 (Continual Learning Through Synaptic Intelligence). width: factor of
    all numbers of channels and features.
    """
    first, second, features = (scaled(own, width) for own in (32, 64, CONV_SMALL_FEATURES))
    return nn.Sequential(
        nn.Conv2d(3, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(second, second, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(8),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(second * 8 * 8, features),
        nn.ReLU(),
        nn.Dropout(0.5),
    )
