"""A small network finds the one real MNIST digit in a 64x64 scene on a real photograph: its class and its box.

    python launch.py train experiments/scenes_localization.py

not measured (n = 1 run was not possible here)
"""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data.scenes import Scenes
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.localization import LocalizationNet
from jaxcnn.tasks.localization import Localization

experiment = Experiment(
    model=LocalizationNet(num_classes=10),
    task=Localization(num_classes=10),
    data=Scenes(
        items=Tfds("mnist", train="train", eval="test"), entries=("image", "boxes", "boxes_mask", "label"), min_items=1, max_items=1
    ),
    optimizer=partial(optax.adamw, learning_rate=4e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    batch_size=32,
    steps=900,
)
