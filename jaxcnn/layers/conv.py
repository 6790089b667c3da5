"""Convolution and pooling layers, bound to the formulations of `jaxcnn.ops` (see there for layout
and source).
"""

from flax import linen as nn

from jaxcnn.ops import convolution, pooling


class Conv(nn.Conv):
    """`flax.linen.Conv` (1-D, 2-D, 3-D, by the length of `kernel_size`) through jaxcnn's
    convolution seam. Input [B, *spatial, C].
    """

    conv_general_dilated: object = convolution.conv_general_dilated


max_pool = pooling.max_pool
avg_pool = pooling.avg_pool
