"""The sigmoid MLP 2-10-10-10-1 learns XOR by plain gradient descent on binary cross-entropy.

    python launch.py train experiments/xor_mlp.py

Expected: accuracy 100 ± 0 % (n = 3 seeds) after 2,000 steps; 1 s; 2026-11-22, 2 cores of an Intel
Xeon (AVX-512) shared with other work.
"""

from functools import partial

import optax

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.xor import Xor
from jaxcnn.models.mlp import MLP
from jaxcnn.tasks.binary import BinaryClassification

experiment = Experiment(
    model=MLP(features=(10, 10, 10, 1)),
    task=BinaryClassification(inputs=("point",)),
    data=Xor(),
    optimizer=partial(optax.sgd, learning_rate=1.0),
    batch_size=4,
    steps=2000,
    eval_every=500,
    log_every=500,
)
