"""ResNet-8 (the CIFAR network of He et al. 2016 with one block a stage, 77,754 parameters), on
Fashion-MNIST, with flips and shifts.

    python launch.py train experiments/fashion_mnist_resnet.py

Expected: 90.20 ± 0.12 % (n = 3 seeds) on all 10,000 test images after 3 epochs; 1,030 s for the
three seeds together (`--sweep seed=0..2 --replicas-by loop`) on 2 cores of an Intel Xeon (AVX-512,
family 6 model 167) that other work shared, with
jaxcnn[onednn], 2026-11-22. A small network in few epochs: ResNet-18 (94.9 % in the data set's own
table) was not trained here, for want of an accelerator, and neither was this one for longer.
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
    augment=(augment.flip_left_right, partial(augment.shift, pixels=2)),
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
