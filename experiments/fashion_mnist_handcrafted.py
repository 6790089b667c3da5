"""Handcrafted features (8 Gabor filters, rectified and averaged over 4x4 cells) and a linear layer, on Fashion-MNIST."""

from functools import partial

import optax

from jaxcnn import schedules
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.handcrafted import FilterBankNet
from jaxcnn.ops import filters
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=FilterBankNet(kernels=partial(filters.gabor_bank, orientations=4, wavelengths=(4.0,), radius=2)),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train", eval="test"),
    optimizer=partial(optax.adam, learning_rate=3e-3),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=2,
    log_every=100,
)
