"""Distillation on Fashion-MNIST: LeNet-5 learns from what a better network makes of each image.

    python launch.py train experiments/fashion_mnist_speed.py data.train='train[:55000]' \\
        data.eval='train[55000:]' --run-dir runs/teacher
    python launch.py train experiments/fashion_mnist_distilled.py objective.teacher=runs/teacher \\
        --sweep seed=0..2

G. Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2, as `objective`.
The teacher is any run directory with the same classes. Its weights are constants of the training
step and in no checkpoint: the folder must be there, unchanged, when a run is trained or resumed,
and is not needed to open, evaluate, predict or export it. A path that is not absolute counts from
where the command is given. Without a teacher (the default) the student learns alone.

Expected: accuracy on the test images, looked at once (n = 3 seeds; 2026-11-25, 2 cores of an Intel
Xeon (AVX-512, AMX, family 6 model 167), shared with other work):

    84.83 ± 0.27 %   with the teacher (93.72 % on the validation images), 1 epoch, 430 steps
    85.32 ± 0.39 %   the same student alone, equal steps: without objective.teacher

So the teacher did not help here. Temperature and share were set beforehand, not tuned; the student
sees each image once, with its label; and this teacher was trained with label smoothing, which is
known to spoil what it has to tell (R. Müller et al., "When does label smoothing help?", 2019). A
step with the teacher takes about 90 ms of CPU time, one without 14 ms.
"""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import apply_model, prepare
from jaxcnn.core.program import evaluation_variables, supervised
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.lenet import LeNet5Modern
from jaxcnn.runs.open import open as open_run
from jaxcnn.tasks.classification import Classification


@functools.cache
def taught_by(folder):
    """(experiment, variables) of the run in `folder`, as it is evaluated."""
    with jax.ensure_compile_time_eval():  # while a step is traced, and yet arrays
        run = open_run(folder)
        return run.experiment, jax.device_get(evaluation_variables(run.state))


def distilled(e, variables, batch, key, *, teacher: str | None = None, temperature=4.0, share=0.9):
    """`share` parts cross-entropy with the teacher's softened distribution, the rest with labels.

    Section 2: both distributions at `temperature`, and that part times its square. Without a
    teacher the student learns alone.
    """
    if teacher is None:
        return supervised(e, variables, batch, key)
    (e_t, known), (augment_key, model_key) = taught_by(teacher), jax.random.split(key)
    seen = prepare(dataclasses.replace(e, transform=()), batch, key=augment_key)
    own_batch = prepare(e, seen)  # each has transforms of its own
    own, collections = apply_model(e, variables, own_batch, train=True, key=model_key, mutable=True)
    taught = apply_model(e_t, known, prepare(e_t, seen), train=False)
    soft = jax.nn.softmax(taught / temperature) * jax.nn.log_softmax(own / temperature)
    soft = -(temperature**2) * soft.sum(-1)
    loss = share * soft + (1 - share) * e.task.loss(own, own_batch)
    agreement = jnp.mean(taught.argmax(-1) == own.argmax(-1), dtype=jnp.float32)
    return loss, collections, {**e.task.running(own, own_batch), "agreement": agreement}


experiment = Experiment(
    model=LeNet5Modern(),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train[:55000]", eval="train[55000:]", test="test"),
    augment=(augment.flip_left_right,),
    optimizer=partial(
        optimizers.sgd, learning_rate=0.05, momentum=0.9, weight_decay=5e-4, mask=optimizers.kernels
    ),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=1,
    objective=partial(distilled, teacher=None),
)
