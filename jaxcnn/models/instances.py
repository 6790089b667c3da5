"""Instance segmentation: the boxes of a center-based detector, RoIAlign inside each, and a small
network that draws the object's mask.

He et al., "Mask R-CNN", 2017, section 3 (RoIAlign 14x14, masks 28x28), with one mask a box rather
than one a class (section 4.2,
"class-agnostic") and boxes from center points. Input: image [B, H, W, C] and boxes [B, N, 4].

While training the mask network is fed the true boxes, and the output is {"heatmap", "size",
"offset": see `jaxcnn.ops.centers`,
"truth_masks": [B, N, 28, 28] logits}. In evaluation it is fed the model's own `max_objects` best
boxes, as `decode_centers` gives them, and the output has "masks" [B, max_objects, 28, 28] instead;
the boxes handed in then change nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv
from jaxcnn.layers.conv_norm import he_normal
from jaxcnn.models.detection import CenterHeads, SmallTrunk, TopDown
from jaxcnn.ops.centers import decode_centers
from jaxcnn.ops.pixel_shuffle import pixel_shuffle
from jaxcnn.ops.roi_align import roi_align

BINS = 14  # of RoIAlign, along each side; masks have twice as many (He et al. 2017, figure 4)


class MaskHead(nn.Module):
    """From features [B, h, w, C] and boxes [B, R, 4] to mask logits [B, R, 28, 28]: `depth` 3x3
    convolutions, a transposed one, a 1x1.
    """

    features: int = 32
    depth: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, box: jax.Array) -> jax.Array:
        x = roi_align(x, box, size=(BINS, BINS))
        batch, count, _, _, channels = x.shape
        x = x.reshape(batch * count, BINS, BINS, channels)
        for number in range(1, self.depth + 1):
            x = nn.relu(Conv(self.features, (3, 3), kernel_init=he_normal, name=f"conv{number}")(x))
        # A transposed convolution whose stride is its window is a 1x1 convolution to each of the
        # 2x2 places.
        x = nn.relu(
            pixel_shuffle(Conv(4 * self.features, (1, 1), kernel_init=he_normal, name="up")(x), 2)
        )
        return Conv(1, (1, 1), name="mask")(x).reshape(batch, count, 2 * BINS, 2 * BINS)


class CenterMaskNet(nn.Module):
    """`CenterNet` with a mask network. `trunk` returns maps finest first; the detector's heads
    stand on the one with index `stride4`, the mask network on the finest, which the detector's
    features are added to. 200,207 parameters with ten classes and grey pictures.
    """

    num_classes: int
    max_objects: int = 10
    trunk: Any = SmallTrunk()
    stride4: int = 1
    features: int = 48
    head_features: int = 32
    mask_features: int = 24

    @nn.compact
    def __call__(self, image: jax.Array, boxes: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        require_image("CenterMaskNet", image, at_least=16)
        maps = self.trunk(image, train=train)
        x = TopDown(self.features, 1, name="top_down")(maps[self.stride4 :], train=train)[0]
        outputs = CenterHeads(self.num_classes, self.head_features, name="heads")(x)
        fine = TopDown(self.mask_features, 1, name="mask_top_down")(
            (*maps[: self.stride4], x), train=train
        )[0]
        head = MaskHead(name="mask_head")
        if train:
            return outputs | {"truth_masks": head(fine, boxes)}
        # In float32, as the task decodes the outputs: in bfloat16 two scores may be equal that were
        # not, and masks change places.
        heatmap, size, offset = (
            outputs[name].astype(jnp.float32) for name in ("heatmap", "size", "offset")
        )
        own = decode_centers(heatmap, size, offset, num_objects=self.max_objects)[0]
        return outputs | {"masks": head(fine, own.astype(x.dtype))}
