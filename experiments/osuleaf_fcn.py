"""The fully convolutional network FCN, on OSULeaf: outlines of leaves as series of 427 numbers, 6 species, 200 for training."""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data.series import Series
from jaxcnn.experiment import Experiment
from jaxcnn.models.signals import FCN
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=FCN(num_classes=6, widths=(64, 128, 64)),
    task=Classification(num_classes=6, inputs=("signal",)),
    data=Series("OSULeaf"),
    optimizer=partial(optax.adamw, learning_rate=2e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=10,
    epochs=120,
    eval_every=20,
)
