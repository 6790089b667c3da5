"""A small feed-forward network that puts any photograph into the style of stained tissue at once
(Johnson et al., 2016).

    JAXCNN_HED_WEIGHTS=… python launch.py train experiments/photos_style_feedforward.py
    python launch.py predict RUN photo.png

It learns on 64x64 crops of photographs, and is scored on 24 128x128 crops of photographs that it
has not seen:

    style_ratio      0.225 (n = 1: seed 0)     the untouched content: 1, the style itself: 0
    content_ratio    0.61 (n = 1: seed 0)      the untouched content: 0, the style itself: 0.77 (of
    one pair, see photos_style.py)

107 s on one core of an Intel Xeon (AVX-512, family 6 model 167), 2026-11-22. It is a demonstration
of the method in 300 steps of 4 crops,
where the paper takes 40,000: edges and colours follow the style, faces are lost.
JAXCNN_HED_WEIGHTS: see photos_style.py.
"""

import os
from functools import partial

import jax.numpy as jnp
import optax

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.photo_crops import TRAIN_PHOTOS, PhotoCrops, resize_photo
from jaxcnn.models.style_transfer import JohnsonNet, Stylizer, wanted_style
from jaxcnn.tasks.style_transfer import StyleTransfer
from jaxcnn.weights import files, load
from jaxcnn.weights.keras_rules import HED_VGG16

BLOCKS = ("block1", "block2", "block3", "block4")  # what the loss network has of VGG-16
model = Stylizer(JohnsonNet((16, 32, 64), num_blocks=3))


def begin(params, model_state, source, *, style, features):
    """Fill VGG's weights from the file of the variable `features`, and want the style of photo
    `style`.
    """
    if path := os.environ.get(features):
        arrays = {
            name: array
            for name, array in files.read_arrays(path).items()
            if name.startswith(BLOCKS)
        }
        vgg, _, _ = load.load_weights(
            model_state["loss_network"]["params"], {}, arrays, HED_VGG16, layout="keras"
        )
        model_state = {**model_state, "loss_network": {"params": vgg}}
    else:
        print(
            f"note: {features} is not set, so VGG's weights are random: this tries the "
            "mathematics, not the look"
        )
    picture = jnp.asarray(resize_photo(style, (128, 128)), jnp.float32)[None] / 255.0
    return params, {
        **model_state,
        "style": wanted_style(model, {"params": params, **model_state}, picture),
    }


experiment = Experiment(
    model=model,
    task=StyleTransfer(content_weight=0.3),
    data=PhotoCrops(
        train=tuple(name for name in TRAIN_PHOTOS if name != "ihc"),
        image_size=(64, 64),
        num_train=4_000,
        num_eval=24,
    ),
    optimizer=partial(optax.adam, learning_rate=3e-3),
    schedule=partial(schedules.cosine, warmup=0.05),
    initialize=partial(begin, style="ihc", features="JAXCNN_HED_WEIGHTS"),
    batch_size=4,
    eval_batch_size=4,
    steps=300,
    eval_every=10,
)
