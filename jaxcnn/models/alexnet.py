"""AlexNet: as published (grouped convolutions, response normalization), ungrouped, and the later
network that torchvision calls AlexNet.

Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks"
(2012), sections 3 to 5; "One Weird Trick for Parallelizing Convolutional Neural Networks" (2014),
section 5, for the narrower network.
Input [B, H, W, 3] float, zero mean (227x227: the paper's 224 fits no stride of 4 without padding);
output [B, num_classes] logits.
"""

from flax import linen as nn

from jaxcnn.layers.adaptive_pool import adaptive_avg_pool
from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv, max_pool
from jaxcnn.layers.local_response_norm import LRN

normal = nn.initializers.normal(0.01)  # section 5


class AlexNet(nn.Module):
    """The defaults are the published network. Output [B, num_classes] logits; with `num_classes=0`
    the last map's spatial mean
    [B, widths[-1]]; with `pyramid=True` the maps after convolutions 1, 2 and 5 before their pooling
    (strides 4, 8, 16), and no head.

    widths, groups: of the five convolutions; groups of 2 are the paper's two GPUs, which exchange
        maps at convolution 3 alone.
    response_norm: local response normalization after convolutions 1 and 2, with the constants of
        section 3.3 (`LRN`).
    pool_size: the last map is averaged to it, which admits other image sizes; None flattens the map
        as it is.
    dropout_first: dropout before the hidden dense layers (torchvision), not after them (section
    4.2).
    """

    num_classes: int = 1000
    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    groups: tuple[int, ...] = (1, 2, 1, 2, 2)
    hidden: int = 4096
    dropout: float = 0.5
    stem_padding: int = 0
    response_norm: bool = True
    pool_size: tuple[int, int] | None = None
    dropout_first: bool = False
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        require_image("AlexNet", image, at_least=67 - 2 * self.stem_padding)
        # kernel, strides, padding
        geometry = (
            (11, 4, self.stem_padding),
            (5, 1, 2),
            (3, 1, 1),
            (3, 1, 1),
            (3, 1, 1),
        )
        x, maps = image, []
        for number, (width, groups, (k, s, p)) in enumerate(
            zip(self.widths, self.groups, geometry, strict=True), 1
        ):
            # section 5
            bias_init = nn.initializers.ones if number in (2, 4, 5) else nn.initializers.zeros
            conv = Conv(
                width,
                (k, k),
                (s, s),
                p,
                feature_group_count=groups,
                kernel_init=normal,
                bias_init=bias_init,
                name=f"conv{number}",
            )
            x = nn.relu(conv(x))
            if self.response_norm and number in (1, 2):
                x = LRN()(x)
            if number in (1, 2, 5):
                maps.append(x)
                x = max_pool(x, (3, 3), strides=(2, 2))  # overlapping, section 3.4
        if self.pyramid:
            return tuple(maps)
        if not self.num_classes:
            return x.mean((1, 2))
        x = adaptive_avg_pool(x, self.pool_size) if self.pool_size else x
        x = x.reshape(x.shape[0], -1)  # [B, 6 * 6 * 256]
        for name in ("dense1", "dense2"):
            x = nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout_first else x
            x = nn.relu(
                nn.Dense(
                    self.hidden, kernel_init=normal, bias_init=nn.initializers.ones, name=name
                )(x)
            )
            x = x if self.dropout_first else nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=normal, name="head")(x)


def alexnet(*, num_classes: int = 1000, **fields) -> AlexNet:
    """The published network for 227x227 images, 60,965,224 parameters."""
    return AlexNet(num_classes, **fields)


def alexnet_ungrouped(*, num_classes: int = 1000, **fields) -> AlexNet:
    """The published network on one device, without groups, 62,378,344 parameters."""
    return AlexNet(num_classes, groups=(1,) * 5, **fields)


def alexnet_torchvision(*, num_classes: int = 1000, **fields) -> AlexNet:
    """torchvision's AlexNet for 224x224 images: narrower, no groups, no response normalization;
    61,100,840 parameters.
    """
    later = {
        "widths": (64, 192, 384, 256, 256),
        "groups": (1,) * 5,
        "stem_padding": 2,
        "response_norm": False,
    }
    return AlexNet(num_classes, **{**later, "pool_size": (6, 6), "dropout_first": True, **fields})
