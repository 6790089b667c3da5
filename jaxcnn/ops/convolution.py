"""The one seam through which every convolution of every model goes, so that a faster formulation serves all of them.

Layout: inputs [B, *spatial, C] (channels last), kernels [*window, C / groups, features]; float32 or bfloat16.
"""

from jax import lax


def conv_general_dilated(lhs, rhs, window_strides, padding, **options):
    """`jax.lax.conv_general_dilated`, to be handed to `flax.linen.Conv(conv_general_dilated=…)`; same arguments, same result."""
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
