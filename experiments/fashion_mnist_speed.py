"""Fashion-MNIST against the clock: the network of the CIFAR-10 speed records, narrower, with a
whitening first layer.

    python launch.py train experiments/fashion_mnist_speed.py

Expected: 92.43 ± 0.12 % (n = 10 seeds, mean ± standard deviation) after 1.5 epochs, 704 steps, in
38.5 ± 0.5 s without compilation, 47.0 s with it (41.0 s from the cache), on 2 cores of an Intel
Xeon (AVX-512), nothing else running, jaxcnn[onednn], 2026-11-23. The command:

    python benchmarks/time_to_accuracy.py fashion_mnist_speed 10

With epochs=3, 1,407 steps: 93.48 ± 0.14 % (n = 10) in 68.5 ± 1.4 s. With epochs=5.5, 2,579 steps:
94.06 ± 0.15 % (n = 10) in 123.4 ± 2.1 s. 2026-11-23, the same machine; compilation takes 9 s more,
as for the first. No time on a GPU is measured.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.speed import MirrorAveraged, SpeedNet, whitening_kernel
from jaxcnn.tasks.classification import Classification

standardize = partial(augment.standardize, mean=0.286, std=0.353)  # of the training images


def whiten(params, model_state, source):
    """Fill the first layer's kernel from the first 5,000 training images at most, as
    `Experiment.initialize` asks.
    """
    image = source.take(np.arange(min(5000, len(source)), dtype=np.int32))["image"]
    image = standardize({"image": jnp.asarray(image, jnp.float32) / 255})["image"]
    kernel = jax.jit(whitening_kernel)(image)
    return {
        **params,
        "model": {**params["model"], "whiten": {**params["model"]["whiten"], "kernel": kernel}},
    }, model_state


experiment = Experiment(
    model=MirrorAveraged(SpeedNet(widths=(32, 64, 128))),
    task=Classification(num_classes=10, label_smoothing=0.1),
    data=Tfds("fashion_mnist", train="train", eval="test"),
    augment=(augment.flip_left_right,),
    transform=(standardize,),
    optimizer=partial(
        optimizers.sgd,
        learning_rate=0.3,
        momentum=0.85,
        nesterov=True,
        weight_decay=1e-3,
        mask=optimizers.kernels,
    ),
    schedule=partial(schedules.triangular, peak_at=0.2, initial=0.2),
    rates=(("whiten/kernel", 0.0),),
    initialize=whiten,
    batch_size=128,
    epochs=1.5,
    eval_every=100,
    log_every=100,
)
