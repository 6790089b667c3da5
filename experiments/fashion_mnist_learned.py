"""The same network as fashion_mnist_handcrafted.py, but its 8 filters are learned end to end, on
Fashion-MNIST.

    python launch.py train experiments/fashion_mnist_learned.py

    features                     accuracy         parameters  MACs     time
    8 Gabor filters of 5x5       87.74 ± 0.05 %        7,850  164,640  19 to 77 s
    8 learned filters of 5x5     86.21 ± 0.30 %        8,058  164,640  126 to 131 s

Mean ± standard deviation over seeds 0, 1, 2 (n = 3), 2 epochs, on 2 shared cores of an Intel Xeon
(family 6, model 167), 2026-11-22; the times vary with what else ran. In so short a run the designed
filters are ahead of the learned ones, which start from noise; longer runs were not compared. For
learning with depth see fashion_mnist_cnn.py.
"""

from functools import partial

import optax

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.handcrafted import FilterBankNet
from jaxcnn.ops import filters
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=FilterBankNet(
        learned=True,
        kernels=partial(filters.gabor_bank, orientations=4, wavelengths=(4.0,), radius=2),
    ),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train", eval="test"),
    optimizer=partial(optax.adam, learning_rate=3e-3),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=2,
    log_every=100,
)
