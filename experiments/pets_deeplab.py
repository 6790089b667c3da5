"""DeepLabV3+ on ResNet-50 tells pet, background and border in the photographs of Oxford-IIIT Pet.

    python launch.py prepare oxford_iiit_pet
    python launch.py train experiments/pets_deeplab.py

For an accelerator; not measured (not even n = 1 run was possible here). The set's masks count from
1, so 1 is subtracted: 0 pet, 1 ground, 2 the border between them. Trained from scratch, with the
schedule of Chen et al. 2018 (polynomial of power 0.9), at stride 32.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.deeplab import deeplab_resnet50
from jaxcnn.tasks.segmentation import Segmentation

experiment = Experiment(
    model=deeplab_resnet50(num_classes=3),
    task=Segmentation(num_classes=3, names=("pet", "background", "border")),
    data=Tfds(
        "oxford_iiit_pet",
        label="",
        image_size=(256, 256),
        segmentation="segmentation_mask",
        segmentation_offset=-1,
    ),
    augment=(
        augment.flip_left_right,
        partial(
            augment.affine, degrees=10.0, factor=(0.8, 1.5), translation=0.1, segmentation_fill=255
        ),
        augment.jitter_color,
    ),
    transform=(
        partial(augment.standardize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
    optimizer=partial(optax.adamw, learning_rate=1e-3, weight_decay=0.02, mask=optimizers.kernels),
    schedule=partial(schedules.polynomial, power=0.9, warmup=0.05),
    batch_size=32,
    epochs=150,
    eval_every=10,
    ema=0.999,
    compute_dtype="bfloat16",
)
