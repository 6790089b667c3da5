"""The scenes of scenes_detection, found by a small FCOS: a prediction at every place of two maps, then non-maximum suppression.

    python launch.py train experiments/scenes_detection_fcos.py

not measured (n = 1 run was not possible here)
"""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data.scenes import Scenes
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.detection import FCOS
from jaxcnn.tasks.dense_detection import DenseDetection

experiment = Experiment(
    model=FCOS(num_classes=10),
    task=DenseDetection(num_classes=10, image_size=(64, 64), max_objects=10, num_candidates=50),
    data=Scenes(items=Tfds("mnist", train="train", eval="test"), entries=("image", "boxes", "boxes_mask", "box_labels"), max_items=3),
    optimizer=partial(optax.adamw, learning_rate=4e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    clip_norm=5.0,
    batch_size=32,
    steps=1_300,
    eval_every=2.0,
)
