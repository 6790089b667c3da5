"""Policies: each image gets a few operations, drawn by the rules of a published method.

Every image draws for itself. What that costs: an image undergoes one of some 14 operations, and a
device that works on all rows at once would compute all of them. Here the geometric ones share one
resampling by a matrix of each row's own, and those of light and colour are computed for all rows
and one is chosen: most of them are a few operations a value and fuse into one pass over the images;
equalizing alone needs a histogram. One such layer took 2 to 3 times as long as `augment.affine`
alone (2 CPU cores, 32x32 and 224x224 images), not 14 times; `python launch.py bench augment` shows
what it takes here. What a batch does not draw is not computed for it, but under `vmap` (replicas).

Options of all: `fill`, `segmentation_fill`, `order`, `min_visible` of `geometry.warp`, by which
labels move along with the image. `order=0`, the nearest pixel, is what most published code does.
Where `fill` is black as here, or grey (0.5) as for AutoAugment's own training, results hardly
differ.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax, random

from jaxcnn.core.batch import kind
from jaxcnn.data import geometry, matrix
from jaxcnn.data.augment import operations, spaces
from jaxcnn.data.augment.draws import per_row, uniform
from jaxcnn.data.augment.spaces import OPERATIONS, Range, Space
from jaxcnn.data.geometry import Batch
from jaxcnn.errors import ConfigError, did_you_mean

LIGHT: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "brightness": operations.brightness,
    "color": operations.saturation,
    "contrast": operations.contrast,
    "sharpness": operations.sharpness,
    "posterize": operations.posterize,
    "solarize": operations.solarize,
    "autocontrast": lambda image, _: operations.autocontrast(image),
    "equalize": lambda image, _: operations.equalize(image),
    "invert": lambda image, _: operations.invert(image),
}
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
WHERE = ("boxes", "points", "polygons")  # kinds of labels that say where something is


def rand_augment(
    key: jax.Array,
    batch: Batch,
    *,
    count: int = 2,
    magnitude: int = 9,
    top: int = 30,
    space: Space = spaces.RAND_AUGMENT,
    **options,
) -> Batch:
    """`count` operations drawn evenly, one after the other, all of one magnitude out of `top`.

    E. Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search
    space" (2020), section 3. Errors: ConfigError for a magnitude outside [0, top].
    """
    if not 0 <= magnitude <= top:
        raise ConfigError(f"rand_augment: magnitude is {magnitude}; it lies in [0, top={top}]")
    rows = batch["image"].shape[0]
    for layer in random.split(key, count):
        choice, sign = random.split(layer)
        chosen = _draw(choice, rows, space)
        share = jnp.full((rows,), magnitude / top, jnp.float32)
        batch = apply(batch, chosen, arguments(sign, chosen, share, space), space, **options)
    return batch


def trivial_augment(
    key: jax.Array,
    batch: Batch,
    *,
    top: int = 30,
    pixels: int = 32,
    space: Space = spaces.TRIVIAL_WIDE,
    **options,
) -> Batch:
    """One operation, drawn evenly, of a magnitude drawn evenly among 0, …, `top`.

    S. Müller and F. Hutter, "TrivialAugment: tuning-free yet state-of-the-art data augmentation"
    (2021), section 3, the wide space. `pixels`: the largest translation.
    """
    rows, height, width = batch["image"].shape[:3]
    space = {
        **space,
        "translate_x": Range(0, pixels / width, signed=True),
        "translate_y": Range(0, pixels / height, signed=True),
    }
    choice, level, sign = random.split(key, 3)
    chosen = _draw(choice, rows, space)
    share = random.randint(level, (rows,), 0, top + 1).astype(jnp.float32) / top
    return apply(batch, chosen, arguments(sign, chosen, share, space), space, **options)


def auto_augment(
    key: jax.Array, batch: Batch, *, policy: str = "imagenet", space: Space | None = None, **options
) -> Batch:
    """One of the 25 sub-policies that were found for a data set: two operations one after the
    other, each with a probability and a magnitude of its own.

    E. Cubuk et al., "AutoAugment: learning augmentation strategies from data" (2019), appendix.
    Factors of brightness, color, contrast and sharpness are 0.1 + 1.8 m / 9, as its table 6 has
    them; torchvision's are 1 ± 0.9 m / 9.

    Args:
        policy: "imagenet", "cifar10" or "svhn".
    Errors: ConfigError for another policy.
    """
    if policy not in spaces.POLICIES:
        raise ConfigError(
            f"auto_augment: policy is {policy!r}; it is one of {', '.join(spaces.POLICIES)}"
            f"{did_you_mean(policy, spaces.POLICIES)}"
        )
    space = spaces.AUTO_AUGMENT if space is None else space
    table, rows = spaces.POLICIES[policy], batch["image"].shape[0]
    choice, *layers = random.split(key, 3)
    which = random.randint(choice, (rows,), 0, len(table))
    for step, layer in enumerate(layers):
        names, rates, levels = zip(*(policy[step] for policy in table), strict=True)
        numbers = jnp.array([OPERATIONS.index(name) for name in names], jnp.int32)
        rate_key, sign = random.split(layer)
        happens = random.uniform(rate_key, (rows,)) < jnp.array(rates, jnp.float32)[which]
        chosen = jnp.where(happens, numbers[which], 0)
        share = jnp.array(levels, jnp.float32)[which] / 9
        batch = apply(batch, chosen, arguments(sign, chosen, share, space), space, **options)
    return batch


def aug_mix(
    key: jax.Array,
    batch: Batch,
    *,
    severity: float = 3.0,
    width: int = 3,
    depth: int | None = None,
    alpha: float = 1.0,
    space: Space = spaces.AUG_MIX,
    fill: float = 0.0,
    order: int = 1,
) -> Batch:
    """Mix the image with several chains of operations on it: (1 - m) image + m Σ w_i chain_i, w ~
    Dirichlet(alpha), m ~ Beta(alpha, alpha).

    D. Hendrycks et al., "AugMix: a simple data processing method to improve robustness and
    uncertainty" (2020), section 3, without its consistency loss, which needs an objective. `width`
    chains are `depth` operations long (None: 1 to 3 by chance), magnitudes uniform in [0.1,
    severity] of 10. Each of `width` images passes three layers, so this is the dearest of the
    policies.
    Errors: ConfigError for a batch whose labels say where something is: the chains show it in
    several places at once.
    """
    placed = [name for name in batch if kind(name) in (*WHERE, "mask", "classes")]
    placed += ["value_map"] * ("value_map" in batch)
    if placed:
        raise ConfigError(
            f"aug_mix: the batch has {', '.join(placed)}, and a mixed picture shows things in "
            "several places at once; take rand_augment or trivial_augment, which move labels along"
        )
    image = batch["image"]
    rows, most = image.shape[0], depth or 3
    depth_key, weight_key, blend_key, *layers = random.split(key, 3 + most)
    # all chains of all images as one batch [width B, …]
    copies = {"image": jnp.tile(image, (width, 1, 1, 1))}
    length = random.randint(depth_key, (width * rows,), depth or 1, most + 1)
    for step, layer in enumerate(layers):
        choice, level, sign = random.split(layer, 3)
        chosen = jnp.where(step < length, _draw(choice, width * rows, space), 0)
        share = uniform(level, width * rows, 0.1, severity) / 10
        argument = arguments(sign, chosen, share, space)
        copies = apply(copies, chosen, argument, space, fill=fill, order=order)
    weights = random.dirichlet(
        weight_key, jnp.full((width,), alpha, jnp.float32), (rows,), jnp.float32
    )
    chains = copies["image"].reshape(width, *image.shape)
    mixed = sum(
        (per_row(weights[:, i]).astype(image.dtype) * chains[i] for i in range(width)),
        jnp.zeros_like(image),
    )
    ends = jnp.float32(alpha)
    share = per_row(random.beta(blend_key, ends, ends, (rows,), jnp.float32)).astype(image.dtype)
    return {**batch, "image": jnp.clip((1 - share) * image + share * mixed, 0, 1)}


def arguments(key: jax.Array, chosen: jax.Array, share: jax.Array, space: Space) -> jax.Array:
    """The argument [B] float32 of each row's operation, `share` [B] of its reach away from its
    neutral one, the sign drawn where the space says so.
    """
    ranges = [space.get(name, Range()) for name in OPERATIONS]
    neutral, reach, signed = (
        jnp.array(column, jnp.float32) for column in zip(*ranges, strict=True)
    )
    sign = jnp.where(random.bernoulli(key, 0.5, chosen.shape), 1.0, -1.0)
    sign = jnp.where(signed[chosen] > 0, sign, 1.0)
    argument = neutral[chosen] + sign * reach[chosen] * share
    whole = chosen == OPERATIONS.index("posterize")
    return jnp.where(whole, jnp.round(argument), argument)


def apply(batch: Batch, chosen: jax.Array, argument: jax.Array, space: Space, **options) -> Batch:
    """To each row the operation `chosen` [B] int32 (a place in `spaces.OPERATIONS`) with its
    argument [B] float32. Operations outside `space` are not looked for. Options: those of
    `geometry.warp`.

    Shears leave the upper left corner where it is, rotations the centre.
    """
    size = batch["image"].shape[1:3]
    if any(name in space for name in MOVES):
        matrices = _matrices(size, chosen, argument)
        moved = jnp.isin(chosen, jnp.array([OPERATIONS.index(name) for name in MOVES]))
        # A branch of its own is compiled on its own: what follows does not resample anew for each
        # operation that looks at the image (XLA fuses as if that cost nothing).
        batch = lax.cond(
            moved.any(),
            lambda batch: geometry.warp(batch, matrices, **options),
            lambda batch: geometry.move_labels(
                geometry.move_grids(batch, lambda _, grid: grid), matrices, source=size
            ),
            batch,
        )
    image = out = batch["image"]
    for name, operation in LIGHT.items():
        if name not in space:
            continue
        own = chosen == OPERATIONS.index(name)
        changed = (
            lax.cond(own.any(), operation, lambda image, _: image, image, argument)
            if name in ("equalize", "sharpness")  # the dearest; see above
            else operation(image, argument)
        )
        out = jnp.where(per_row(own), changed, out)
    return {**batch, "image": out}


def _draw(key, rows, space):
    """Operations of a space, drawn evenly: [rows] int32."""
    numbers = jnp.array([OPERATIONS.index(name) for name in space], jnp.int32)
    return numbers[random.randint(key, (rows,), 0, len(numbers))]


def _matrices(size, chosen, argument):
    """[B, 2, 3], the identity for rows whose operation moves nothing."""

    def of(name):
        return jnp.where(chosen == OPERATIONS.index(name), argument, 0.0)

    zero, (height, width) = jnp.zeros_like(argument), size
    matrices = matrix.affine_matrices(
        size=size, degrees=of("rotate"), factor=zero + 1, shear=zero, offset=(zero, zero)
    )
    extra = [
        [zero, of("shear_y"), height * of("translate_y")],
        [of("shear_x"), zero, width * of("translate_x")],
    ]
    return matrices + jnp.stack([jnp.stack(row, -1) for row in extra], axis=-2)
