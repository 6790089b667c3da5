"""Augmentation of captions."""

import jax
import jax.numpy as jnp
from jax import random

from jaxcnn.data.geometry import Batch
from jaxcnn.ops.decoding import PAD


def draw_caption(key: jax.Array, batch: Batch) -> Batch:
    """Keep one caption of each example, drawn anew each time among those that have words:
    "captions" int32 [B, R, L] -> [B, 1, L].
    """
    captions = batch["captions"]
    exists = (captions[..., 0] != PAD).astype(jnp.float32)  # [B, R]
    # an example without any keeps its first, empty one
    chosen = random.categorical(key, jnp.log(exists), axis=-1)
    return {**batch, "captions": jnp.take_along_axis(captions, chosen[:, None, None], axis=1)}
