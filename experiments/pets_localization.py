"""The head and the breed of each of 37 kinds of cats and dogs, Oxford-IIIT Pet at 224x224, by
ResNet-18. For an accelerator.

    python launch.py prepare oxford_iiit_pet
    python launch.py train experiments/pets_localization.py

Not measured (not even n = 1: the set could not be had here); its step was run on random data. The
set has boxes of heads for its "train"
part alone: a tenth of it is kept for evaluation, and an image without a box is learned without one.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.localization import BackboneLocalization
from jaxcnn.tasks.localization import Localization

experiment = Experiment(
    model=BackboneLocalization(num_classes=37),
    task=Localization(num_classes=37, box_weight=2.0, invalid="skip"),
    data=Tfds(
        "oxford_iiit_pet",
        train="train[:90%]",
        eval="train[90%:]",
        image_size=(224, 224),
        boxes="head_bbox",
    ),
    augment=(
        augment.flip_left_right,
        partial(augment.affine, degrees=10.0, factor=(0.7, 1.4), translation=0.1),
        augment.jitter_color,
    ),
    transform=(
        partial(augment.standardize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
    optimizer=partial(optax.adamw, learning_rate=1e-3, weight_decay=0.05, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=64,
    epochs=200,
    eval_every=10,
    ema=0.999,
    compute_dtype="bfloat16",
)
