"""The two LeNets that pruning papers compress (LeCun et al., 1998; the second in the form of Caffe's example).

lenet300 is LeNet-300-100: linear layers of 300 and 100 with a ReLU after each; 266,610 parameters for 28x28 images of one channel and
ten classes. lenet5 is LeNet-5-Caffe: two 5x5 convolutions with a pool after each and no activation, then 500 with the only ReLU;
431,080 parameters there.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from raysearch.errors import DataError

_LEAST = 16
"""The shortest side that lenet5's two convolutions and pools leave something of."""


def _lenet300(num_classes: int, input_shape: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(math.prod(input_shape), 300),
            relu1=nn.ReLU(),
            fc2=nn.Linear(300, 100),
            relu2=nn.ReLU(),
            fc3=nn.Linear(100, num_classes),
        )
    )


def _lenet5(num_classes: int, input_shape: Sequence[int]) -> nn.Sequential:
    channels, *sides = input_shape
    if min(sides) < _LEAST:
        raise DataError(
            f"teacher.model 'lenet5' takes images of {_LEAST}x{_LEAST} at least, but the data's are "
            f"{'x'.join(map(str, sides))}; set data.resize={_LEAST}, or teacher.model=lenet300"
        )
    left = [((side - 4) // 2 - 4) // 2 for side in sides]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 20, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(50 * math.prod(left), 500),
            relu1=nn.ReLU(),
            fc2=nn.Linear(500, num_classes),
        )
    )


CONFIGURATIONS: Mapping[str, Callable[[int, Sequence[int]], nn.Sequential]] = {
    "lenet300": _lenet300,
    "lenet5": _lenet5,
}
"""Name -> (classes, input shape) -> network."""


def lenet(name: str, num_classes: int, input_shape: Sequence[int]) -> nn.Sequential:
    """The network called `name`: [B, C, H, W] -> logits [B, K].

    Args:
        name: a key of `CONFIGURATIONS`.
        num_classes: K.
        input_shape: [C, H, W] of the images.

    Raises:
        DataError: the images are too small for lenet5.
    """
    return CONFIGURATIONS[name](num_classes, input_shape)
