"""The shapes and dtypes in the signatures of ops and metrics are checked in every call that a test
makes (tests/conftest.py).
"""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jaxcnn.metrics import image_quality, matching
from jaxcnn.ops import boxes, heatmaps, masks

ZEROS = jnp.zeros((3, 4))


@pytest.mark.parametrize(
    "call",
    [
        lambda: boxes.area(jnp.zeros((3, 5))),  # a box has four numbers
        lambda: boxes.area(jnp.zeros((3, 4), jnp.int32)),
        lambda: boxes.iou(ZEROS, jnp.zeros((2, 4))),
        lambda: boxes.suppress(ZEROS, jnp.zeros(2), iou_threshold=0.5),
        lambda: jax.jit(boxes.area)(jnp.zeros((3, 5))),
        lambda: heatmaps.decode_maximum(jnp.zeros((8, 8, 2))),  # no batch
        # these would broadcast, silently
        lambda: image_quality.psnr(jnp.zeros((2, 8, 8, 3)), jnp.zeros((1, 8, 8, 3))),
        lambda: masks.pairwise_iou(np.zeros((2, 4, 4)), np.zeros((2, 4, 5))),
        lambda: matching.match(np.zeros(4), threshold=0.5),
    ],
    ids=range(9),
)
def test_a_wrong_shape_or_dtype_is_refused(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


def test_right_shapes_are_not():
    assert boxes.iou(ZEROS[:, None], jnp.zeros((1, 2, 4))).shape == (3, 2)
    assert boxes.pairwise_iou(jnp.zeros((7, 1, 3, 4)), jnp.zeros((1, 5, 2, 4))).shape == (
        7,
        5,
        3,
        2,
    )
    assert boxes.area(jnp.zeros((3, 4), jnp.bfloat16)).shape == (3,)
