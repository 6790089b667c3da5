"""ResNet-8 on Fashion-MNIST as in fashion_mnist_resnet.py, with TrivialAugment after flips and
shifts (S. Müller and F. Hutter, "TrivialAugment: tuning-free yet state-of-the-art data
augmentation", 2021, the wide space).

    python launch.py train experiments/fashion_mnist_trivial.py

The comparison is of the same seeds and epochs without it:

    python launch.py train experiments/fashion_mnist_trivial.py epochs=20 --sweep seed=0..4
    python launch.py train experiments/fashion_mnist_resnet.py epochs=20 --sweep seed=0..4

Neither was run for this file, so no result is stated here, not even of n = 1 seed. In few epochs a
network this small need not gain: strong augmentation mends overfitting.
"""

from functools import partial

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.resnet import resnet_cifar
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=resnet_cifar(depth=8),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train", eval="test"),
    augment=(
        augment.flip_left_right,
        partial(augment.shift, pixels=2),
        # translation by up to the images' size, as the paper's 32 pixels are of CIFAR's 32
        partial(augment.trivial_augment, pixels=28),
    ),
    optimizer=partial(
        optimizers.sgd,
        learning_rate=0.2,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        mask=optimizers.kernels,
    ),
    schedule=partial(schedules.triangular, peak_at=0.3),
    batch_size=128,
    epochs=3,
    log_every=100,
)
