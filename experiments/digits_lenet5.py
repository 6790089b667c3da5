"""LeNet-5 as published in 1998, on scikit-learn's 8x8 digits.

    python launch.py train experiments/digits_lenet5.py

Expected: 99.81 ± 0.16 % on the held-out fifth (359 digits; n = 3 seeds) after 40 epochs, 21 to 35
s; 2026-11-22, 2 cores of an Intel Xeon (AVX-512) shared with other work.
Training and held-out digits share writers, so this is an easy test: it shows that all works,
nothing about the state of the art.
"""

from functools import partial

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.made.digits import Digits
from jaxcnn.models.lenet import LeNet5
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=LeNet5(),
    task=Classification(num_classes=10, rubbish_penalty=0.1),
    data=Digits(),
    augment=(partial(augment.affine, degrees=8.0),),
    optimizer=partial(optimizers.sgd, learning_rate=0.002, momentum=0.9),
    schedule=partial(schedules.cosine, warmup=0.1),
    batch_size=64,
    epochs=40,
    eval_every=5,
)
