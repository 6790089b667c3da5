"""Neural style transfer: networks that make a picture, and a frozen VGG that judges what is in it
and how it looks.

Gatys, Ecker, Bethge, "Image style transfer using convolutional neural networks", 2016: the picture
itself is what is learned. Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time style transfer
and super-resolution", 2016: a network is, which then restyles any picture at once, with the
instance normalization of Ulyanov et al., "Instance normalization: the missing ingredient", 2016.
Huang, Belongie, "Arbitrary style transfer in real-time with adaptive instance normalization", 2017:
one network for all styles.

Pictures [B, H, W, 3] RGB float in [0, 1]. The frozen VGG is no parameter: its weights lie in the
collection "loss_network", random until `initialize` of the experiment fills them, and the style's
statistics in the collection "style".
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv
from jaxcnn.models.vgg import VGG
from jaxcnn.ops.gram import adaptive_instance_norm, gram, moments

# VGG-16 up to relu4_3: all that style and content are read from
LOSS_NETWORK = VGG((2, 2, 3, 3), 0, (64, 128, 256, 512))
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
# of ImageNet's B, G, R in 0..255, which the published VGG was trained without
CAFFE_MEAN = (
    103.939,
    116.779,
    123.68,
)


class Restyled(NamedTuple):
    """A picture, and what the loss network sees in it. Statistics: one array [B, …] for
    each layer.
    """

    picture: jax.Array  # [B, H, W, 3]
    style: tuple[jax.Array, ...]  # of the picture
    wanted_style: tuple[jax.Array, ...]  # of the style picture
    start_style: tuple[jax.Array, ...]  # of the content picture
    content: tuple[jax.Array, ...]  # maps of the picture
    wanted_content: tuple[jax.Array, ...]  # maps of the content picture


def caffe_input(image: jax.Array) -> jax.Array:
    """RGB in [0, 1] as the published VGG wants it: B, G, R in 0..255 less their means.
    [B, H, W, 3]
    """
    return image[..., ::-1] * 255 - jnp.asarray(CAFFE_MEAN, image.dtype).reshape(1, 1, 1, 3)


class Stylizer(nn.Module):
    """`network`, which restyles a picture, under the eyes of a loss network. Input [B, H, W, 3]
    (the content), output `Restyled`.

    content_layers, style_layers: names of maps of `loss_network`. statistics: map -> what of it is
    style.
    """

    network: nn.Module
    loss_network: nn.Module = LOSS_NETWORK
    content_layers: tuple[str, ...] = ("relu4_2",)
    style_layers: tuple[str, ...] = STYLE_LAYERS
    statistics: Callable[[jax.Array], jax.Array] = gram

    @nn.compact
    def __call__(self, image, *, train: bool):
        require_image("Stylizer", image, channels=3)
        picture = self.network(image, train=train)
        features = frozen_features(self, self.loss_network)
        own, given = features(picture), features(image)
        require_layers(own, (*self.content_layers, *self.style_layers))
        style, start = (
            tuple(self.statistics(maps[name]) for name in self.style_layers)
            for maps in (own, given)
        )
        wanted = [
            self.variable("style", name, jnp.zeros, (1, *s.shape[1:])).value
            for name, s in zip(self.style_layers, style, strict=True)
        ]
        wanted = tuple(
            jnp.broadcast_to(w.astype(s.dtype), s.shape) for w, s in zip(wanted, style, strict=True)
        )
        content, wanted_content = (
            tuple(maps[name] for name in self.content_layers) for maps in (own, given)
        )
        return Restyled(picture, style, wanted, start, content, wanted_content)


def wanted_style(model: Stylizer, variables: Any, picture: jax.Array) -> dict[str, jax.Array]:
    """The collection "style" that makes a model want the style of `picture` [1, H, W, 3], of any
    size; for `initialize`.
    """
    seen: Any = model.apply(variables, picture, train=False)
    return dict(zip(model.style_layers, seen.start_style, strict=True))


def frozen_features(module: nn.Module, network: Any) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Picture -> the maps that `network` sows, by name; its weights, the collection "loss_network"
    of `module`, get no gradient.
    """
    # on its own, or its weights would be parameters of the module
    network = network.clone(parent=None)

    def init() -> Any:
        return network.init(module.make_rng("params"), jnp.zeros((1, 32, 32, 3)), train=False)[
            "params"
        ]

    weights = module.variable("loss_network", "params", init).value

    def features(image: jax.Array) -> dict[str, jax.Array]:
        own = jax.tree.map(lambda w: jax.lax.stop_gradient(w).astype(image.dtype), weights)
        _, sown = network.apply(
            {"params": own}, caffe_input(image), train=False, mutable=["intermediates"]
        )
        return {name: maps[0] for name, maps in sown["intermediates"].items()}

    return features


def require_layers(maps: dict[str, jax.Array], names: tuple[str, ...]) -> None:
    """Raise ConfigError unless the loss network sows a map of each of these names."""
    if missing := [name for name in names if name not in maps]:
        raise ConfigError(
            f"content_layers and style_layers name {', '.join(missing)}, which the loss network "
            f"lacks{did_you_mean(missing[0], maps)}; it has {', '.join(maps)}"
        )


class FreePicture(nn.Module):
    """A picture [1, *size, 3] that is itself the parameter (Gatys et al., 2016); of its input only
    the number of rows is used.

    The parameter "logits" is the picture before a sigmoid, which keeps it in [0, 1]: what is scored
    is what will be seen. It starts as noise of deviation `noise` about grey; an experiment adds the
    `picture_logits` of the content to it.
    """

    size: tuple[int, int] = (128, 128)
    noise: float = 0.1

    @nn.compact
    def __call__(self, image, *, train: bool):
        picture = nn.sigmoid(
            self.param("logits", nn.initializers.normal(self.noise), (1, *self.size, 3))
        )
        return jnp.broadcast_to(picture, (image.shape[0], *picture.shape[1:]))


def picture_logits(picture: jax.Array) -> jax.Array:
    """What a sigmoid makes `picture` of, to within a grey level: 0 and 1 are infinitely far, and
    learn nothing.
    """
    value = jnp.clip(picture, 1 / 255, 254 / 255)
    return jnp.log(value) - jnp.log1p(-value)


class JohnsonNet(nn.Module):
    """Two strided convolutions, residual blocks, two enlargements (Johnson et al., 2016, section
    3.1 and supplement). [B, H, W, 3] -> same

    With instance normalization; padding by reflection; enlarged by repetition and convolution,
    which leaves no checkerboard (Odena et al.,
    "Deconvolution and checkerboard artifacts", 2016). 1,677,635 parameters; the convolutions'
    biases, which the normalization subtracts, would add 1,600 (`conv_bias`, for published weights).
    The sigmoid at the end keeps the picture in [0, 1].
    """

    widths: tuple[int, int, int] = (32, 64, 128)
    num_blocks: int = 5
    window: int = 9
    conv_bias: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        height, width = image.shape[1:3]
        x = image
        for index, (features, window, stride) in enumerate(
            zip(self.widths, (self.window, 3, 3), (1, 2, 2), strict=True)
        ):
            x = nn.relu(self._unit(f"down{index}", features, window, stride)(x))
        for index in range(self.num_blocks):
            inner = nn.relu(self._unit(f"block{index}_1", self.widths[-1])(x))
            x = x + self._unit(f"block{index}_2", self.widths[-1])(inner)
        for index, features in enumerate(self.widths[-2::-1]):
            x = nn.relu(self._unit(f"up{index}", features)(_repeat(x)))
        x = ReflectConv(3, self.window, name="last")(x[:, :height, :width])
        return nn.sigmoid(x)

    def _unit(self, name: str, features: int, window: int = 3, stride: int = 1) -> nn.Module:
        return ReflectConv(features, window, stride, bias=self.conv_bias, norm=True, name=name)


class ReflectConv(nn.Module):
    """A convolution padded by reflection, so that a border looks like the rest; perhaps with
    instance normalization (no bias then).
    """

    features: int
    window: int = 3
    stride: int = 1
    bias: bool = True
    norm: bool = False

    @nn.compact
    def __call__(self, x):
        half = self.window // 2
        if min(x.shape[1:3]) <= half:
            raise ConfigError(
                f"ReflectConv: a map of {x.shape[1]} x {x.shape[2]} cannot be reflected by "
                f"{half}; take larger pictures"
            )
        x = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)), mode="reflect")
        x = Conv(
            self.features,
            (self.window,) * 2,
            (self.stride,) * 2,
            "VALID",
            use_bias=self.bias,
            name="conv",
        )(x)
        return nn.InstanceNorm(epsilon=1e-5, name="norm")(x) if self.norm else x


class AdaINStylizer(nn.Module):
    """Restyles any content in any style: the content's map relu4_1 takes the style's moments, and a
    decoder makes it a picture.

    Input: content [B, H, W, 3] and style [B, H', W', 3] (a task with inputs=("image", "style"));
    output `Restyled`, with means and deviations as style and the decoder's target as wanted content
    (Huang and Belongie, 2017, equations 11 to 13). The decoder mirrors the
    encoder: 3,505,219 parameters. strength in [0, 1]: how far from content to style (equation 14).
    """

    loss_network: nn.Module = LOSS_NETWORK
    style_layers: tuple[str, ...] = STYLE_LAYERS
    strength: float = 1.0

    @nn.compact
    def __call__(self, image, style, *, train: bool):
        require_image("AdaINStylizer", image, channels=3)
        require_image("AdaINStylizer", style, channels=3)
        features, deepest = frozen_features(self, self.loss_network), self.style_layers[-1]
        # the encoder halves them three times: made whole, and cut again at the end
        height, width = image.shape[1:3]
        padded = jnp.pad(image, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
        given, wanted = features(padded), features(style)
        require_layers(given, self.style_layers)
        if [8 * n for n in given[deepest].shape[1:3]] != list(padded.shape[1:3]):
            raise ConfigError(
                f"AdaINStylizer: style_layers={self.style_layers} end in {deepest!r}, and the "
                "decoder makes a picture of a map of stride 8; let the last be one of relu4_…"
            )
        strength = jnp.asarray(self.strength, image.dtype)
        target = (
            strength * adaptive_instance_norm(given[deepest], wanted[deepest])
            + (1 - strength) * given[deepest]
        )
        picture = Decoder(name="decoder")(target)
        own = features(picture)
        seen, asked, start = (
            tuple(moments(maps[name]) for name in self.style_layers)
            for maps in (own, wanted, given)
        )
        return Restyled(picture[:, :height, :width], seen, asked, start, (own[deepest],), (target,))


class Decoder(nn.Module):
    """VGG's first four stages backwards, without normalization (Huang and Belongie, 2017, section
    6). [B, h, w, 512] -> [B, 8h, 8w, 3]
    """

    widths: tuple[tuple[int, ...], ...] = ((256,), (256, 256, 256, 128), (128, 64), (64,))

    @nn.compact
    def __call__(self, x):
        for stage, widths in enumerate(self.widths):
            x = _repeat(x) if stage else x
            for index, width in enumerate(widths):
                x = nn.relu(ReflectConv(width, name=f"conv{stage}_{index}")(x))
        return ReflectConv(3, name="last")(x)


def _repeat(x: jax.Array) -> jax.Array:
    """Each pixel four times. [B, H, W, C] -> [B, 2H, 2W, C]"""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
