"""A small 3D CNN tells in which of eight directions a real MNIST digit moves, in clips of 8 frames
of 32x32.

    python launch.py train experiments/mnist_motion_3d.py
    python launch.py train experiments/mnist_motion_3d.py data.shuffled=True

    frames            accuracy
    in order          99.98 ± 0.03 % (n = 3 seeds)
    in random order   49.35 ± 0.74 % (n = 3 seeds)

2,000 clips of digits that were not trained on, after 250 steps, one evaluation at the end.
About 25 s of CPU time, on 2 shared cores of an Intel Xeon (family 6, model 167), 2026-11-22.
Chance is 12.5 %. Shuffled, a direction and its opposite look the same, so that 50 % is the best
possible (see jaxcnn/data/made/clips.py): the network finds the axis of motion in all clips (top-2
accuracy 100 %), and its sense in none.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.made.clips import MotionClips
from jaxcnn.models.video import SmallVideoNet
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=SmallVideoNet(num_classes=8, widths=(8, 16, 32, 32)),
    task=Classification(num_classes=8, top=2, inputs=("clip",)),
    data=MotionClips(digits=Tfds("mnist", train="train", eval="test")),
    optimizer=partial(optax.adamw, learning_rate=4e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    batch_size=32,
    steps=250,
)
