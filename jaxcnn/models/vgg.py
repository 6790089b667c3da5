"""VGG networks of depth 11, 13, 16, 19, as published and with batch normalization.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015),
table 1, columns A, B, D, E. Input [B, H, W, 3] float, about zero mean (224x224 as published), H and
W at least 32; output [B, num_classes] logits.
"""

from flax import linen as nn

from jaxcnn.layers.adaptive_pool import adaptive_avg_pool
from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv, max_pool
from jaxcnn.layers.conv_norm import he_normal


class VGG(nn.Module):
    """A VGG network. Output [B, num_classes] logits; with `num_classes=0` the last map's spatial
    mean [B, widths[-1]]; with `pyramid=True` each stage's map before its pooling, finest first
    (strides 1, 2, 4, 8, 16), and no head.

    stage_sizes, widths: number of 3x3 convolutions and their width in each stage; 2x2 max pooling
        follows every stage.
    hidden: width of the two hidden dense layers, each followed by dropout.
    pool_size: the last map is averaged to it, which changes nothing for 224x224 images and admits
        others; None flattens the map as it is.
    conv_bias: with BatchNorm a bias is redundant; torchvision's networks keep it, so their weights
    need True. The maps "relu1_1", … are sown into the collection "intermediates" for losses on
    features.
    """

    stage_sizes: tuple[int, ...] = (2, 2, 3, 3, 3)
    num_classes: int = 1000
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    dropout: float = 0.5
    batch_norm: bool = False
    conv_bias: bool = True
    pool_size: tuple[int, int] | None = (7, 7)
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        require_image("VGG", image, at_least=2 ** len(self.stage_sizes))
        x, maps = image, []
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            for index in range(1, size + 1):
                name = f"{stage}_{index}"
                x = Conv(
                    width,
                    (3, 3),
                    padding=1,
                    use_bias=self.conv_bias,
                    kernel_init=he_normal,
                    name=f"conv{name}",
                )(x)
                if self.batch_norm:
                    x = BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=f"norm{name}")(x)
                x = nn.relu(x)
                self.sow("intermediates", f"relu{name}", x)
            maps.append(x)
            x = max_pool(x, (2, 2))
        if self.pyramid:
            return tuple(maps)
        if not self.num_classes:
            return x.mean((1, 2))
        x = adaptive_avg_pool(x, self.pool_size) if self.pool_size else x
        x = x.reshape(x.shape[0], -1)  # [B, 7 * 7 * 512]
        for name in ("dense1", "dense2"):
            x = nn.relu(
                nn.Dense(self.hidden, kernel_init=nn.initializers.normal(0.01), name=name)(x)
            )
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="head")(x)


def vgg11(*, num_classes: int = 1000, **fields) -> VGG:
    """VGG-11 (column A), 132,863,336 parameters."""
    return VGG((1, 1, 2, 2, 2), num_classes, **fields)


def vgg13(*, num_classes: int = 1000, **fields) -> VGG:
    """VGG-13 (column B), 133,047,848 parameters."""
    return VGG((2, 2, 2, 2, 2), num_classes, **fields)


def vgg16(*, num_classes: int = 1000, **fields) -> VGG:
    """VGG-16 (column D), 138,357,544 parameters."""
    return VGG((2, 2, 3, 3, 3), num_classes, **fields)


def vgg19(*, num_classes: int = 1000, **fields) -> VGG:
    """VGG-19 (column E), 143,667,240 parameters."""
    return VGG((2, 2, 4, 4, 4), num_classes, **fields)


def vgg11_bn(*, num_classes: int = 1000, **fields) -> VGG:
    """torchvision's VGG-11 with BatchNorm, 132,868,840 parameters, redundant biases included (see
    `conv_bias`).
    """
    return vgg11(num_classes=num_classes, batch_norm=True, **fields)


def vgg13_bn(*, num_classes: int = 1000, **fields) -> VGG:
    """torchvision's VGG-13 with BatchNorm, 133,053,736 parameters, redundant biases included (see
    `conv_bias`).
    """
    return vgg13(num_classes=num_classes, batch_norm=True, **fields)


def vgg16_bn(*, num_classes: int = 1000, **fields) -> VGG:
    """torchvision's VGG-16 with BatchNorm, 138,365,992 parameters, redundant biases included (see
    `conv_bias`).
    """
    return vgg16(num_classes=num_classes, batch_norm=True, **fields)


def vgg19_bn(*, num_classes: int = 1000, **fields) -> VGG:
    """torchvision's VGG-19 with BatchNorm, 143,678,248 parameters, redundant biases included (see
    `conv_bias`).
    """
    return vgg19(num_classes=num_classes, batch_norm=True, **fields)
