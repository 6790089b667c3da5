"""Where text is: a pyramid of features that says of each cell of a grid whether it lies in the
kernel of a line of text.

Liao, Wan, Yao, Chen, Bai, "Real-time Scene Text Detection with Differentiable Binarization" (2020),
figure 3, without the branch that predicts thresholds; Lin et al., "Feature Pyramid Networks for
Object Detection" (2017), section 3. Input [B, H, W, C] float in [0, 1]; output [B, H / stride, W /
stride] logits.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.conv import Conv, max_pool
from jaxcnn.layers.conv_norm import ConvNorm


class TextKernelNet(nn.Module):
    """Stages of 3x3 convolutions with BatchNorm, each half the size of the one before; a top-down
    path that adds them up again; their maps, enlarged to the finest one, side by side into the
    head.

    stem: channels of the first convolution, at half the image's size; a max-pooling follows if
    `stride`, the pixels of a cell's side, is 4 and not 2.
    widths: channels of the stages, the first at `stride`; blocks: convolutions in each. pyramid:
    channels of the top-down path.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2
    pyramid: int = 256
    stem: int = 64
    stride: int = 4

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        self.require_image(image)
        x = ConvNorm(self.stem, 3, 2, name="stem")(2 * image - 1, train=train)
        if self.stride == 4:
            x = max_pool(x, (2, 2))
        maps = []
        for stage, width in enumerate(self.widths, 1):
            for block in range(1, self.blocks + 1):
                strides = 2 if stage > 1 and block == 1 else 1
                x = ConvNorm(width, 3, strides, name=f"stage{stage}_conv{block}")(x, train=train)
            maps.append(ConvNorm(self.pyramid, 1, name=f"lateral{stage}")(x, train=train))
        for stage in range(len(maps) - 1, 0, -1):
            maps[stage - 1] = maps[stage - 1] + enlarge(maps[stage], 2)
        part = max(self.pyramid // len(maps), 1)
        parts = [
            enlarge(ConvNorm(part, 3, name=f"smooth{stage + 1}")(level, train=train), 2**stage)
            for stage, level in enumerate(maps)
        ]
        x = ConvNorm(part, 3, name="head_conv")(jnp.concatenate(parts, axis=-1), train=train)
        return Conv(1, (1, 1), name="head")(x)[..., 0]

    def require_image(self, image: jax.Array) -> None:
        """Raise ConfigError unless the image is [B, H, W, C] and all stages halve it evenly."""
        if self.stride not in (2, 4):
            raise ConfigError(
                f"TextKernelNet: stride is {self.stride}; cells of 2 or 4 pixels can be predicted"
            )
        if image.ndim != 4:
            raise ConfigError(
                f"TextKernelNet expects images [B, H, W, C], found shape {tuple(image.shape)}"
            )
        whole = self.stride * 2 ** (len(self.widths) - 1)
        if any(n % whole for n in image.shape[1:3]):
            raise ConfigError(
                f"TextKernelNet: the image is {image.shape[1]}x{image.shape[2]}; take multiples "
                f"of {whole}: resize or pad"
            )


def enlarge(x: jax.Array, factor: int) -> jax.Array:
    """Each cell becomes factor x factor cells: [B, H, W, C] -> [B, H * factor, W * factor, C]."""
    if factor == 1:
        return x
    batch, height, width, channels = x.shape
    wide = jnp.broadcast_to(
        x[:, :, None, :, None], (batch, height, factor, width, factor, channels)
    )
    return wide.reshape(batch, height * factor, width * factor, channels)
