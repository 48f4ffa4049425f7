"""Small networks of the families whose graphs differ: six for the operators and sequences of the other two methods."""

from .conftest import Builder, resnet


def lenet(classes=10):
    """Unpadded 5x5 convolutions, flattened into a classifier of three layers."""
    b = Builder(1, 28, 28)
    b.conv("conv1", 6, kernel=5, padding=2, bias=True)
    b.relu("relu1")
    b.pool("pool1", 2)
    b.conv("conv2", 16, kernel=5, padding=0, bias=True)
    b.relu("relu2")
    b.pool("pool2", 2)
    b.flatten()
    b.linear("fc1", 120)
    b.relu("relu3")
    b.linear("fc2", 84)
    b.relu("relu4")
    b.linear("fc3", classes)
    return b.done()


def small_vgg():
    """A plain network with BatchNorm and a 7x7 stem."""
    b = Builder(3, 16, 16)
    b.conv("stem", 12, kernel=7)
    b.bn("stem_bn")
    b.relu("stem_relu")
    for index, width in enumerate((16, "M", 24, 24, "M", 32)):
        if width == "M":
            b.pool(f"pool{index}", 2)
        else:
            b.conv(f"conv{index}", width)
            b.bn(f"bn{index}")
            b.relu(f"relu{index}")
    b.flatten()
    b.linear("classifier", 10)
    return b.done()


def option_b():
    """A ResNet with projections where shapes change."""
    return resnet((1, 2, 1), (12, 20, 28), input_shape=(3, 16, 16))


def option_a():
    """A ResNet whose shortcuts halve the map by a pool and pad the channels with zeros."""
    b = Builder(3, 16, 16)
    b.conv("conv1", 12)
    b.bn("bn1")
    source = b.relu("relu")
    for index, (width, stride) in enumerate(((12, 1), (20, 2), (20, 1), (28, 2))):
        prefix = f"block{index}."
        b.conv(prefix + "conv1", width, stride=stride, source=source)
        b.bn(prefix + "bn1")
        b.relu(prefix + "relu1")
        b.conv(prefix + "conv2", width)
        main = b.bn(prefix + "bn2")
        if stride > 1:
            size = {"kind": "avg", "kernel": [1, 1], "stride": [2, 2], "padding": [0, 0]}
            source = b.add(prefix + "half", "pool", source, **size)
            pads = [0, 0, 0, 0, 4, 4]
            source = b.add(prefix + "pad", "pad", source, pads=pads, mode="constant", value=0.0)
        b.add(prefix + "add", "add", main, source)
        source = b.relu(prefix + "relu2")
    b.mean()
    b.linear("fc", 10)
    return b.done()


def mobilenet():
    """Inverted residuals: depthwise convolutions between 1x1 ones, sums without an activation behind them."""
    b = Builder(3, 16, 16)
    b.conv("stem", 8, stride=2)
    b.bn("stem_bn")
    source = b.relu("stem_relu")
    for index, (width, stride) in enumerate(((8, 1), (12, 2), (12, 1), (16, 1))):
        prefix, inside = f"block{index}.", 3 * b.shape(source)[0]
        b.conv(prefix + "expand", inside, kernel=1, source=source)
        b.bn(prefix + "bn1")
        b.relu(prefix + "relu1")
        b.conv(
            prefix + "depth", inside, kernel=5 if index == 2 else 3, stride=stride, groups=inside
        )
        b.bn(prefix + "bn2")
        b.relu(prefix + "relu2")
        b.conv(prefix + "project", width, kernel=1)
        main = b.bn(prefix + "bn3")
        same = b.shape(main) == b.shape(source)
        source = b.add(prefix + "add", "add", source, main) if same else main
    b.conv("head", 32, kernel=1)
    b.relu("head_relu")
    b.mean()
    b.add("drop", "dropout", fn="dropout", p=0.2)
    b.linear("fc", 10)
    return b.done()


def densenet():
    """Two dense blocks of bottlenecks with a transition between them."""
    b = Builder(3, 16, 16)
    source = b.conv("stem", 12)
    for block in range(2):
        for index in range(3):
            prefix = f"block{block}.{index}."
            b.bn(prefix + "bn1", source)
            b.relu(prefix + "relu1")
            b.conv(prefix + "conv1", 16, kernel=1)
            b.bn(prefix + "bn2")
            b.relu(prefix + "relu2")
            new = b.conv(prefix + "conv2", 6)
            source = b.add(prefix + "cat", "concat", source, new, dim=0)
        b.bn(f"trans{block}.bn")
        b.relu(f"trans{block}.relu")
        if block == 0:
            b.conv("trans0.conv", 15, kernel=1)
            source = b.pool("trans0.pool", 2, "avg")
    b.mean()
    b.linear("fc", 10)
    return b.done()


SIX = {
    "lenet": lenet,
    "vgg": small_vgg,
    "option_b": option_b,
    "option_a": option_a,
    "mobilenet": mobilenet,
    "densenet": densenet,
}

__all__ = ["SIX", "Builder", "resnet"]
