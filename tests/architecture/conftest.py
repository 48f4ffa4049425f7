"""Teachers built by hand, so that the tests of architectures need no torch."""

import math

import pytest

from raysearch.architecture.graph import Architecture, Layer
from raysearch.architecture.ops import OPS


class Builder:
    """Adds layers one by one and infers their shapes."""

    def __init__(self, *input_shape):
        self.input_shape = input_shape
        self.layers = [Layer("x", "input", shape=input_shape)]
        self.last = "x"

    def shape(self, name=None):
        return next(layer.shape for layer in self.layers if layer.name == (name or self.last))

    def add(self, name, op, *slots, **attrs):
        slots = tuple((slot,) if isinstance(slot, str) else tuple(slot) for slot in slots)
        slots = slots or ((self.last,),)
        shape = OPS[op].out_shape(attrs, [self.shape(slot[0]) for slot in slots])
        roles = {**OPS[op].params(attrs), **OPS[op].buffers(attrs)}
        params = {role: f"{name}.{role}" for role in roles}
        self.layers.append(Layer(name, op, slots, attrs, shape, params))
        self.last = name
        return name

    def conv(
        self, name, out, kernel=3, stride=1, *, source=None, groups=1, bias=False, padding=None
    ):
        source = source or self.last
        rank = len(self.shape(source)) - 1
        return self.add(
            name,
            "conv",
            source,
            in_channels=self.shape(source)[0],
            out_channels=out,
            kernel=[kernel] * rank,
            stride=[stride] * rank,
            padding=[kernel // 2 if padding is None else padding] * rank,
            dilation=[1] * rank,
            groups=groups,
            bias=bias,
        )

    def bn(self, name, source=None):
        source = source or self.last
        size = self.shape(source)[0]
        return self.add(
            name, "batch_norm", source, num_features=size, eps=1e-5, momentum=0.1, affine=True
        )

    def relu(self, name, source=None):
        return self.add(name, "unary", source or self.last, fn="relu", args=[], kwargs={})

    def pool(self, name, kernel, kind="max"):
        size = [kernel] * (len(self.shape()) - 1)
        return self.add(name, "pool", kind=kind, kernel=size, stride=size, padding=[0] * len(size))

    def mean(self, name="pool"):
        return self.add(
            name, "reduce", fn="mean", dims=list(range(1, len(self.shape()))), keepdim=False
        )

    def flatten(self, name="flatten"):
        return self.add(name, "reshape", mode="flatten")

    def linear(self, name, out, bias=True):
        return self.add(name, "linear", in_features=self.shape()[-1], out_features=out, bias=bias)

    def done(self):
        return Architecture(self.input_shape, tuple(self.layers), self.last)


def resnet(blocks=(2, 2, 2), widths=(16, 32, 64), classes=10, input_shape=(3, 32, 32)):
    """A CIFAR ResNet with projection shortcuts where shapes change; ResNet-14 by default."""
    b = Builder(*input_shape)
    b.conv("conv1", widths[0])
    b.bn("bn1")
    source = b.relu("relu")
    for stage, (depth, width) in enumerate(zip(blocks, widths, strict=True), 1):
        for index in range(depth):
            prefix = f"layer{stage}.{index}."
            stride = 2 if index == 0 and stage > 1 else 1
            b.conv(prefix + "conv1", width, stride=stride, source=source)
            b.bn(prefix + "bn1")
            b.relu(prefix + "relu1")
            b.conv(prefix + "conv2", width)
            main = b.bn(prefix + "bn2")
            if b.shape(source) != b.shape(main):
                b.conv(prefix + "down.conv", width, kernel=1, stride=stride, source=source)
                source = b.bn(prefix + "down.bn")
            b.add(prefix + "add", "add", main, source)
            source = b.relu(prefix + "relu2")
    b.mean()
    b.linear("fc", classes)
    return b.done()


def vgg(plan=(16, "M", 32, 32, "M", 64, 64, "M"), classes=10, input_shape=(3, 32, 32)):
    """A VGG with BatchNorm and a flatten before the classifier."""
    b = Builder(*input_shape)
    for index, width in enumerate(plan):
        if width == "M":
            b.pool(f"pool{index}", 2)
        else:
            b.conv(f"conv{index}", width, bias=True)
            b.bn(f"bn{index}")
            b.relu(f"relu{index}")
    b.flatten()
    b.linear("classifier", classes)
    return b.done()


def resnet34():
    """ESNAC's CIFAR-100 ResNet-34."""
    return resnet((3, 4, 6, 3), (64, 128, 256, 512), 100)


def mixed():
    """Depthwise and grouped convolutions, a gate, a concatenation, a channel pad and a shared convolution."""
    b = Builder(3, 16, 16)
    b.conv("stem", 24)
    b.bn("stem_bn")
    stem = b.relu("stem_relu")
    b.conv("depthwise", 24, groups=24)
    b.conv("grouped", 24, groups=3, bias=True)
    body = b.relu("body")
    b.add("squeeze", "reduce", fn="mean", dims=[1, 2], keepdim=True)
    b.conv("reduce", 6, kernel=1, bias=True)
    b.relu("gate_relu")
    b.conv("expand", 24, kernel=1, bias=True)
    gate = b.add("sigmoid", "unary", fn="sigmoid", args=[], kwargs={})
    scaled = b.add("scale", "binary", body, gate, fn="mul")
    b.conv("left", 10, source=stem)
    left = b.add("left_relu", "unary", fn="relu", args=[], kwargs={})
    b.conv("right", 10, source=scaled)
    right = b.add("right_drop", "dropout", fn="dropout", p=0.1)
    b.add("cat", "concat", left, right, dim=0)
    b.conv("mix", 20, stride=2)
    mix = b.add("mix_act", "unary", fn="gelu", args=[], kwargs={"approximate": "none"})
    small = b.add("padded", "pad", mix, pads=[0, 0, 0, 0, 6, 6], mode="constant", value=0.0)
    wide = b.conv("wide", 32, source=mix)
    b.add("sum", "add", small, wide)
    b.conv("shared", 32)
    first = b.last
    weights = {"weight": "shared.weight"}
    b.conv("again", 32)
    b.layers[-1] = Layer(
        "again", "conv", ((first,),), b.layers[-1].attrs, b.layers[-1].shape, weights
    )
    b.add("avg", "adaptive_pool", kind="avg", output_size=[2, 2])
    b.flatten()
    b.linear("hidden", 30)
    b.relu("hidden_relu")
    b.linear("logits", 7)
    return b.done()


def brute_params(architecture):
    """Parameters counted from the attributes alone, shared ones once."""
    total, seen = 0, set()
    for layer in architecture.layers:
        a = layer.attrs
        sizes = {
            "conv": lambda a=a: {
                "weight": a["out_channels"]
                * a["in_channels"]
                // a["groups"]
                * math.prod(a["kernel"]),
                "bias": a["out_channels"] * a["bias"],
            },
            "linear": lambda a=a: {
                "weight": a["out_features"] * a["in_features"],
                "bias": a["out_features"] * a["bias"],
            },
            "batch_norm": lambda a=a: {"weight": a["num_features"], "bias": a["num_features"]},
        }.get(layer.op, dict)()
        for role, size in sizes.items():
            name = layer.params.get(role, f"{layer.name}.{role}")
            total += 0 if name in seen else size
            seen.add(name)
    return total


TEACHERS = {"resnet14": resnet, "vgg": vgg, "mixed": mixed}


@pytest.fixture(scope="session")
def networks():
    """Functions that build networks, by name; `Builder` for others."""
    return {**TEACHERS, "resnet": resnet, "resnet34": resnet34}


@pytest.fixture(scope="session")
def builder():
    return Builder


@pytest.fixture(scope="session")
def count_params():
    return brute_params


@pytest.fixture(params=list(TEACHERS), scope="module")
def teacher(request):
    return TEACHERS[request.param]()
