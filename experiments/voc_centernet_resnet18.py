"""CenterNet on ResNet-18, PASCAL VOC 2007 at 384x384: twenty classes of things in photographs. For
an accelerator.

    python launch.py prepare voc/2007
    python launch.py train experiments/voc_centernet_resnet18.py

Not measured (not even n = 1: the set could not be had here); its step was run on random data. It
starts from random weights, where Zhou et al. 2019, section 5.1, start from ImageNet's and train on
VOC 2012 too: expect less than theirs.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.detection import center_net_resnet18
from jaxcnn.tasks.detection import CenterDetection

SIZE = (384, 384)

experiment = Experiment(
    model=center_net_resnet18(num_classes=20),
    task=CenterDetection(
        num_classes=20, image_size=SIZE, max_objects=100, metric="AP50", invalid="skip"
    ),
    data=Tfds(
        "voc/2007",
        train="train+validation",
        eval="test",
        label="",
        image_size=SIZE,
        boxes="objects.bbox",
        box_labels="objects.label",
        skip_objects="objects.is_difficult",
        max_items=42,
    ),
    augment=(
        augment.flip_left_right,
        partial(augment.affine, factor=(0.6, 1.4), translation=0.1),
        augment.jitter_color,
    ),
    transform=(
        partial(augment.standardize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
    optimizer=partial(optax.adamw, learning_rate=1e-3, weight_decay=0.02, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    clip_norm=10.0,
    batch_size=64,
    epochs=200,
    eval_every=20,
    ema=0.999,
    compute_dtype="bfloat16",
)
