"""Where a layer's maps speak for a score: Grad-CAM and LayerCAM.

Pure functions of a score (see `jaxcnn.inspect.attribution`) and pictures [B, H, W, C], under `jit`
and `vmap` as any. A layer is named as in `jaxcnn.inspect.taps`; None: the last one that has maps.
Its map [B, h, w] is stretched over the picture bilinearly, as if its first and last places lay at
the picture's borders. Results are float32 [B, H, W], at least 0; 0 throughout where nothing in the
layer speaks for the score.
"""

import jax
import jax.numpy as jnp

from jaxcnn.inspect.taps import Score, layer_gradient


def grad_cam(score: Score, images: jax.Array, *, layer: str | None = None) -> jax.Array:
    """The layer's maps, each times the mean over its places of the score's gradient; what of their
    sum is positive. [B, H, W, C] -> [B, H, W]

    R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", 2017, equations 1 and 2. Errors: ConfigError, see `taps.choose_layer`.
    """
    output, gradient = layer_gradient(score, images, layer=layer)
    weight = jnp.mean(gradient, axis=(1, 2), keepdims=True)
    return _stretched(jax.nn.relu(jnp.sum(weight * output, axis=-1)), images)


def layer_cam(score: Score, images: jax.Array, *, layer: str | None = None) -> jax.Array:
    """The layer's maps, each place times what of the score's gradient there is positive; what of
    their sum is positive. Sharper than Grad-CAM in early layers. [B, H, W, C] -> [B, H, W]

    P.-T. Jiang et al., "LayerCAM: exploring hierarchical class activation maps for localization",
    2021, equations 5 to 7. Errors: ConfigError, see `taps.choose_layer`.
    """
    output, gradient = layer_gradient(score, images, layer=layer)
    return _stretched(jax.nn.relu(jnp.sum(jax.nn.relu(gradient) * output, axis=-1)), images)


def _stretched(maps: jax.Array, images: jax.Array) -> jax.Array:
    return jax.image.resize(maps, (maps.shape[0], *images.shape[1:3]), "linear")
