"""Which learning rate? The modern LeNet-5 on Fashion-MNIST, four rates with four seeds each,
sixteen replicas in one program.

    python launch.py train experiments/fashion_mnist_lenet_rates.py --sweep

    learning rate   accuracy after 3 epochs (mean ± std, n = 4; 95 % interval of the mean)
    0.1             88.54 ± 0.50 % (± 0.80)
    0.05            88.33 ± 0.17 % (± 0.27)
    0.025           87.60 ± 0.20 % (± 0.32)
    0.0125          86.42 ± 0.26 % (± 0.41)

5 min for all sixteen; the trial chose chunks of four; 2026-11-22, 2 cores of an Intel Xeon
(AVX-512) shared with other work.
"""

from functools import partial

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.lenet import LeNet5Modern
from jaxcnn.runs.sweep import grid
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=LeNet5Modern(),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train", eval="test"),
    augment=(augment.flip_left_right,),
    optimizer=partial(
        optimizers.sgd, learning_rate=0.05, momentum=0.9, weight_decay=5e-4, mask=optimizers.kernels
    ),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=3,
    log_every=200,
)


def sweep():
    """Four learning rates, four seeds each."""
    return grid(optimizer__learning_rate=(0.0125, 0.025, 0.05, 0.1), seed=range(4))
