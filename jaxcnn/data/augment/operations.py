"""What is done to the light and colour of images, once it is settled how much: no randomness here.

Images are [B, H, W, C] float in [0, 1] and come back so; amounts are [B] float32, one an image.
Colours are RGB where C is 3; the grey of other images is the channels' mean. The numbers are those
of Pillow's ImageEnhance and ImageOps (and so of the published augmentation policies), without their
rounding to bytes but where it is said.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.data.augment.draws import per_row
from jaxcnn.errors import ConfigError


def luminance(image: jax.Array) -> jax.Array:
    """[B, H, W, 1]: ITU-R BT.601 for three channels, else the channels' mean."""
    if image.shape[-1] != 3:
        return image.mean(-1, keepdims=True)
    # of three slices: XLA's sum along so short an axis takes ten times as long on CPU
    red, green, blue = jnp.split(image, 3, axis=-1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def mean_luminance(image: jax.Array) -> jax.Array:
    """[B, 1, 1, 1]: the mean over an image."""
    return luminance(image.mean(axis=(1, 2), keepdims=True))


def blend(other: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """other + factor * (image - other), cut to [0, 1]."""
    return jnp.clip(other + per_row(factor).astype(image.dtype) * (image - other), 0, 1)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Times the factor; 0 is black."""
    return blend(jnp.zeros_like(image), image, factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """The distance from the image's mean luminance times the factor; 0 is even grey."""
    return blend(mean_luminance(image), image, factor)


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """The distance from each pixel's luminance times the factor; 0 is grey, and nothing happens to
    one channel.
    """
    return blend(luminance(image), image, factor)


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """The distance from the smoothed image times the factor; 0 is smooth, 2 sharp."""
    return blend(smooth(image), image, factor)


def smooth(image: jax.Array) -> jax.Array:
    """A weighted mean of 3 x 3 pixels, 5 for the middle one and 1 for each of the others; pixels at
    the border stay (PIL.ImageFilter.SMOOTH).
    """
    if min(image.shape[1:3]) < 3:
        return image
    rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    ring = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = (ring + 4 * image[:, 1:-1, 1:-1]) / 13
    return image.at[:, 1:-1, 1:-1].set(inner)


def hue(image: jax.Array, turns: jax.Array) -> jax.Array:
    """Turn the hue (of hue, saturation, value) by so many of its circle; 1/3 makes red green.

    Images of one channel have no hue and stay. Errors: ConfigError for other numbers of channels.
    """
    if image.shape[-1] == 1:
        return image
    if image.shape[-1] != 3:
        raise ConfigError(
            f"hue: images of {image.shape[-1]} channels have no hue; it is defined for RGB"
        )
    red, green, blue = jnp.unstack(image.astype(jnp.float32), axis=-1)
    value, low = image.max(-1).astype(jnp.float32), image.min(-1).astype(jnp.float32)
    chroma = value - low
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    sixth = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    turned = sixth + 6 * turns.astype(jnp.float32)[:, None, None]
    channels = []
    for start in (5.0, 3.0, 1.0):
        k = start + turned
        k = k - 6 * jnp.floor(k / 6)
        channels.append(value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))
    return jnp.clip(jnp.stack(channels, axis=-1), 0, 1).astype(image.dtype)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Keep the highest `bits` (0 to 8, whole numbers) of each byte that the image is rounded to."""
    step = jnp.exp2(8 - per_row(bits).astype(jnp.float32))
    bytes_ = jnp.round(image.astype(jnp.float32) * 255)
    return (jnp.floor(bytes_ / step) * step / 255).astype(image.dtype)


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Invert the values of at least the threshold in [0, 1]; above 1 nothing changes."""
    # a byte at the threshold is inverted, however the two were rounded
    least = per_row(threshold).astype(image.dtype) - jnp.array(1e-5, image.dtype)
    return jnp.where(image >= least, 1 - image, image)


def invert(image: jax.Array) -> jax.Array:
    """The negative."""
    return 1 - image


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretch each channel so that its darkest pixel is 0 and its brightest 1; a channel of one
    value stays.
    """
    low, high = (f(image, axis=(1, 2), keepdims=True) for f in (jnp.min, jnp.max))
    flat = high == low
    scaled = (image - low) / jnp.where(flat, jnp.ones_like(high), high - low)
    return jnp.where(flat, image, scaled)


def equalize(image: jax.Array) -> jax.Array:
    """Make the histogram of each channel as flat as a table of its 256 bytes can; a channel with
    fewer than 255 pixels beside its brightest ones stays. As PIL.ImageOps.equalize, byte by byte.
    """
    batch, height, width, channels = image.shape
    bytes_ = jnp.round(image.astype(jnp.float32) * 255).astype(jnp.int32)
    # all histograms in one table, each channel of each image with 256 places of its own
    first = 256 * jnp.arange(batch * channels, dtype=jnp.int32).reshape(batch, 1, 1, channels)
    places = (bytes_ + first).reshape(-1)
    counts = jnp.zeros((batch * channels * 256,), jnp.int32).at[places].add(1)
    brightest = counts[(bytes_.max(axis=(1, 2), keepdims=True) + first).reshape(-1)][:, None]
    counts = counts.reshape(-1, 256)
    step = (height * width - brightest) // 255  # [B C, 1]
    below = jnp.cumsum(counts, axis=1) - counts
    table = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    table = jnp.where(step > 0, table, jnp.arange(256, dtype=jnp.int32)[None])
    # written into an array, which XLA does on its own: else the table is made anew for each pixel
    table = jnp.zeros_like(counts).at[jnp.arange(len(counts))].set(table).reshape(-1)
    return (table[places].reshape(image.shape).astype(jnp.float32) / 255).astype(image.dtype)


def gaussian_blur(image: jax.Array, sigma: jax.Array, *, size: int) -> jax.Array:
    """A mean weighted by a Gaussian of deviation `sigma` in pixels, over `size` x `size` pixels
    (odd); the image is mirrored at its border. Any values and channels.

    Errors: ConfigError for an even size.
    """
    if size < 1 or not size % 2:
        raise ConfigError(f"gaussian_blur: size is {size}; it is odd, so that there is a middle")
    radius = size // 2
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * (offsets[None] / sigma.astype(jnp.float32)[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdims=True)).astype(image.dtype)  # [B, size]
    for axis in (1, 2):
        pads = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        # the barrier: padded once, not anew for each of the `size` terms
        padded = lax.optimization_barrier(jnp.pad(image, pads, mode="reflect"))
        length = image.shape[axis]
        image = sum(
            (
                per_row(weights[:, i]) * lax.slice_in_dim(padded, i, i + length, axis=axis)
                for i in range(size)
            ),
            jnp.zeros_like(image),
        )
    return image
