"""CenterNet with a mask network on ResNet-18, COCO 2017 at 256x256: boxes and masks of eighty
classes of things. For an accelerator.

    python launch.py train experiments/coco_instances.py data.path=… data.images=…

Not measured (not even n = 1: the set could not be had here); its step was run on random data. It
reads COCO's own files, as they are unpacked from annotations_trainval2017.zip, train2017.zip and
val2017.zip into ~/data/coco. An evaluation keeps 2.6 GB of masks.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.coco import Coco
from jaxcnn.models.instances import CenterMaskNet
from jaxcnn.models.resnet import resnet18
from jaxcnn.tasks.instances import InstanceSegmentation

COCO, SIZE, OBJECTS = "~/data/coco", (256, 256), 32

experiment = Experiment(
    model=CenterMaskNet(
        num_classes=80,
        max_objects=OBJECTS,
        trunk=resnet18(num_classes=0, pyramid=True),
        stride4=0,
        features=64,
        head_features=64,
        mask_features=64,
    ),
    task=InstanceSegmentation(num_classes=80, image_size=SIZE, max_objects=OBJECTS, invalid="skip"),
    data=Coco(
        f"{COCO}/annotations/instances_train2017.json",
        images=f"{COCO}/train2017",
        entries=("instance_masks",),
        eval_path=f"{COCO}/annotations/instances_val2017.json",
        eval_images=f"{COCO}/val2017",
        image_size=SIZE,
        max_items=OBJECTS,
        invalid="skip",
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
    schedule=partial(schedules.cosine, warmup=0.02),
    clip_norm=10.0,
    batch_size=64,
    eval_batch_size=64,
    epochs=40,
    eval_every=5,
    ema=0.9998,
    compute_dtype="bfloat16",
)
