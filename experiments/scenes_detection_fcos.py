"""The scenes of scenes_detection, found by a small FCOS: a prediction at every place of two maps,
then non-maximum suppression.

    python launch.py train experiments/scenes_detection_fcos.py

                                  AP        AP50      AP75
    this network                  .778      .964      .911      (n = 1)
    CenterNet (scenes_detection)  .718      .959      .864      (n = 3)

1,000 scenes of digits and photographs that were not trained on, 1,994 digits, evaluated once at the
end. 182 s on one core of an Intel Xeon (AVX-512, family 6 model 167), shared with other work;
2026-11-22.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.made.scenes import Scenes
from jaxcnn.models.detection import FCOS
from jaxcnn.tasks.dense_detection import DenseDetection

experiment = Experiment(
    model=FCOS(num_classes=10),
    task=DenseDetection(
        num_classes=10, image_size=(64, 64), max_objects=10, num_candidates=50, threshold=0.5
    ),
    data=Scenes(
        items=Tfds("mnist", train="train", eval="test"),
        entries=("image", "boxes", "boxes_mask", "box_labels"),
        max_items=3,
    ),
    optimizer=partial(optax.adamw, learning_rate=4e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    clip_norm=5.0,
    batch_size=32,
    steps=1_300,
    eval_every=2.0,
)
