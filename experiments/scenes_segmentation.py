"""A small U-Net gives each pixel its class: real digits on real photographs, 64x64, background and ten digits.

    python launch.py train experiments/scenes_segmentation.py

Expected: mIoU 0.810 (n = 1, by the lead; 263 s on a busy core; three seeds to be measured).
"""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data.scenes import Scenes
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.unet import UNet
from jaxcnn.tasks.segmentation import Segmentation

experiment = Experiment(
    model=UNet(num_classes=11, widths=(24, 48, 96), batch_norm=True, dropout=0.0, patch=2),
    task=Segmentation(num_classes=11),
    data=Scenes(items=Tfds("mnist", train="train", eval="test"), entries=("image", "segmentation")),
    optimizer=partial(optax.adamw, learning_rate=8e-3, b2=0.99, weight_decay=0.02, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=16,
    steps=1_200,
    log_every=100,
)
