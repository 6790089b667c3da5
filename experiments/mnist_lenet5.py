"""LeNet-5 as published in 1998, on MNIST.

    python launch.py train experiments/mnist_lenet5.py

Expected: 99.23 ± 0.08 % on all 10,000 test images (n = 3, last epoch) after 20 epochs with
one-pixel shifts; 7 min on two busy cores; 2026-11-22, 2 cores of an Intel Xeon (AVX-512) shared
with other work.
LeCun et al. 1998, section III: 99.05 % without and 99.2 % with distortions.
"""

from functools import partial

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.lenet import LeNet5
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=LeNet5(),
    task=Classification(num_classes=10, rubbish_penalty=0.1),
    data=Tfds("mnist", train="train", eval="test"),
    augment=(partial(augment.shift, pixels=1),),
    optimizer=partial(optimizers.sgd, learning_rate=0.002, momentum=0.9),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=20,
    log_every=100,
)
