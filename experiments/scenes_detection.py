"""A small CenterNet finds one to three real MNIST digits in a 64x64 scene on a real photograph.

    python launch.py train experiments/scenes_detection.py

                                  AP                 AP50               AP75
    this network                  .7194 ± .0044      .9601 ± .0010      .8655 ± .0080      (n = 3
    seeds)
    blind: the mean box                              .0004              .0000
    (benchmarks/blind_boxes.py) boxes of the bright pixels                       .0085
    .0075              (one class; .742 and .619 whatever the class)

1,000 scenes of digits and photographs that were not trained on, 1,994 digits, evaluated once at the
end. 475 s a seed on one core of an Intel Xeon (AVX-512, family 6 model 167) that tests kept busy;
143 s in a run of the network with an unused layer more, on a freer core (.7184, .9587, .8640);
2026-11-22.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.made.scenes import Scenes
from jaxcnn.models.detection import small_center_net
from jaxcnn.tasks.detection import CenterDetection

experiment = Experiment(
    model=small_center_net(num_classes=10),
    task=CenterDetection(num_classes=10, image_size=(64, 64), max_objects=10),
    data=Scenes(
        items=Tfds("mnist", train="train", eval="test"),
        entries=("image", "boxes", "boxes_mask", "box_labels"),
        max_items=3,
    ),
    optimizer=partial(optax.adamw, learning_rate=4e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    batch_size=32,
    steps=1_300,
    eval_every=2.0,
)
