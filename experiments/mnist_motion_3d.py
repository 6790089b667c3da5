"""A small 3D CNN tells in which of eight directions a real MNIST digit moves, in clips of 8 frames of 32x32."""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data.clips import MotionClips
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
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
