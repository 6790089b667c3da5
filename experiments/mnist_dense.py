"""A dense network, 784-256-10, on MNIST: against mnist_convolution.py, parameters and
multiplications at equal accuracy.

    python launch.py train experiments/mnist_dense.py

    network                  accuracy         parameters  MACs     time
    784-256-10, dense        97.41 ± 0.02 %      203,530  203,264  20 to 36 s
    two convolutions, linear 97.61 ± 0.28 %        3,898   52,320  32 to 48 s

Mean ± standard deviation over seeds 0, 1, 2 (n = 3), 3 epochs, on 2 shared cores of an Intel Xeon
(family 6, model 167), 2026-11-22; the times vary with what else ran. Equal accuracy within the
spread, with 1/52 of the parameters and about 1/4 of the multiplications. What each
makes of shifted digits: docs/equivariance.md.
"""

from functools import partial

import optax

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.mlp import MLP
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=MLP(features=(256, 10), activation="relu"),
    task=Classification(num_classes=10),
    data=Tfds("mnist", train="train", eval="test"),
    optimizer=partial(optax.adam, learning_rate=2e-3),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=3,
    log_every=100,
)
