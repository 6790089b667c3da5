"""The small network that holds speed records on CIFAR-10: a whitening first layer, three blocks
without residuals, a scaled head.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), section 3 and appendix A; the
whitening layer is due to Page, "How to Train Your ResNet" (2019), part 8. Input [B, H, W, C] float,
each channel of zero mean and unit variance (32x32x3 or 28x28x1); output [B, num_classes] logits.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv, max_pool
from jaxcnn.layers.conv_norm import he_normal
from jaxcnn.ops.convolution import conv_general_dilated


def whitening_kernel(image: jax.Array, *, window: int = 2, epsilon: float = 5e-4) -> jax.Array:
    """Filters that decorrelate the windows of these images [N, H, W, C], each beside its negative:
    [window, window, C, 2 window^2 C].

    Eigenvectors of the windows' second moments over the roots of their eigenvalues plus `epsilon`,
    in float32. Put it into `params["whiten"]["kernel"]`; the network does not train it. A few
    thousand images are enough.
    """
    channels = image.shape[-1]
    patches = (
        jax.lax.conv_general_dilated_patches(  # [N, H', W', C * window * window], channels slowest
            image.astype(jnp.float32),
            (window, window),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).reshape(-1, channels * window * window)
    )
    moments = jnp.matmul(patches.T, patches, precision="highest") / patches.shape[0]
    values, vectors = jnp.linalg.eigh(moments)  # ascending
    # largest first
    filters = (
        (vectors / jnp.sqrt(values + epsilon)[None]).T[::-1].reshape(-1, channels, window, window)
    )
    filters = jnp.moveaxis(filters, (0, 1), (-1, -2))  # [window, window, C, window^2 C]
    return jnp.concatenate((filters, -filters), -1)


def dirac_or_he(key, shape, dtype=jnp.float32):
    """Kernel [kh, kw, I, O] whose first min(I, O) filters copy one input channel each, the others
    He's: the signal passes at the start.
    """
    kernel = he_normal(key, shape, dtype)
    copied = min(shape[-2:])
    identity = (
        jnp.zeros((*shape[:-1], copied), dtype)
        .at[shape[0] // 2, shape[1] // 2, jnp.arange(copied), jnp.arange(copied)]
        .set(1)
    )
    return jnp.concatenate((identity, kernel[..., copied:]), -1)


def frozen_conv(lhs, rhs, *arguments, **options):
    """`conv_general_dilated` that gives its kernel no gradient."""
    return conv_general_dilated(lhs, jax.lax.stop_gradient(rhs), *arguments, **options)


class SpeedNet(nn.Module):
    """Output [B, num_classes] logits; with `num_classes=0` the features [B, widths[-1]]; with
    `pyramid=True` the blocks' maps, no head.

    widths: of the three blocks. logit_scale: factor on the logits. norm_momentum: share of
    BatchNorm's running statistics that is kept. The whitening kernel gets no gradient; fill it by
    `whitening_kernel`, or it stays random, and keep weight decay off it.
    """

    num_classes: int = 10
    widths: tuple[int, ...] = (64, 256, 256)
    logit_scale: float = 1 / 9
    norm_momentum: float = 0.6
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        require_image("SpeedNet", image, at_least=2 ** (len(self.widths) + 1))
        x = Conv(
            8 * image.shape[-1],
            (2, 2),
            padding="VALID",
            conv_general_dilated=frozen_conv,
            name="whiten",
        )(image)
        x, maps = nn.gelu(x, approximate=False), []  # [B, H - 1, W - 1, 8 C]
        for block, width in enumerate(self.widths, 1):
            for number in (1, 2):
                x = Conv(
                    width,
                    (3, 3),
                    padding=1,
                    use_bias=False,
                    kernel_init=dirac_or_he,
                    name=f"block{block}_conv{number}",
                )(x)
                x = max_pool(x, (2, 2)) if number == 1 else x
                norm = {"momentum": self.norm_momentum, "epsilon": 1e-12, "use_scale": False}
                x = BatchNorm(not train, **norm, name=f"block{block}_norm{number}")(x)
                x = nn.gelu(x, approximate=False)
            maps.append(x)
        if self.pyramid:
            return tuple(maps)
        x = x.max((1, 2))  # [B, 256]
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, use_bias=False, name="head")(x) * self.logit_scale


class MirrorAveraged(nn.Module):
    """A classifier that, in evaluation, averages its logits over the image and its mirror image.
    [B, H, W, C] -> [B, num_classes]

    Training is the inner model's own. Jordan 2024, section 3.6, where the crops of this test-time
    augmentation gain little beside the flip.
    """

    model: nn.Module

    @nn.compact
    def __call__(self, image, *, train: bool):
        if train:
            return self.model(image, train=True)
        both = jnp.concatenate((image, image[:, :, ::-1]))
        return self.model(both, train=False).reshape(2, image.shape[0], -1).mean(0)


def speednet(*, num_classes: int = 10, **fields) -> SpeedNet:
    """The network of widths 64, 256, 256 for CIFAR-10: 1,971,640 parameters, of which 288 (the
    whitening kernel) are not trained.
    """
    return SpeedNet(num_classes, **fields)
