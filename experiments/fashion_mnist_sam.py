"""Sharpness-aware minimization (SAM) on 10,000 images of Fashion-MNIST, beside its base optimizer.

    python launch.py train experiments/fashion_mnist_sam.py --sweep seed=0..2

P. Foret et al., "Sharpness-aware minimization for efficiently improving generalization", 2021,
algorithm 1 with its radius of 0.05, as `program`: two gradients a step.

Expected: accuracy on the test images, looked at once (n = 3 seeds; 2026-11-25, 2 cores of an Intel
Xeon (AVX-512, AMX, family 6 model 167), shared with other work):

    84.28 ± 0.20 %   SAM, 5 epochs, 391 steps
    84.71 ± 0.98 %   its base optimizer, equal steps: program=None
    86.40 ± 0.61 %   its base optimizer, equal time: program=None epochs=10

So SAM gained nothing here. A step of SAM took 31 ms of CPU time, one of the base 14 ms. LeNet-5 is
far from fitting its training images after so few epochs, while the paper trains large networks for
hundreds; radius and learning rate were set beforehand, not tuned. `sharpness` in the log is how
much larger the loss is at the worst point.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxcnn.core import freezing, optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import with_numbers
from jaxcnn.core.program import advance, descend, gradient, update
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.models.lenet import LeNet5Modern
from jaxcnn.tasks.classification import Classification


def sam(e, *, steps, rho=0.05):
    """Algorithm 1 around `e.optimizer`: the gradient is taken where the loss is largest within a
    distance of `rho`, to first order, and applied here.
    """

    def train_step(state, batch):
        now, key = with_numbers(e, state.hyperparams), jax.random.fold_in(state.key, state.step)
        here = gradient(now, state, batch, key)
        norm = optax.tree.norm(here.grads)
        trainable, frozen = freezing.split(state.params, e.rates)
        worst = jax.tree.map(lambda w, g: w + rho * g / (norm + 1e-12), trainable, here.grads)
        there = gradient(now, state.replace(params=freezing.merge(worst, frozen)), batch, key)
        found = there._replace(model_state=here.model_state)  # statistics of where the weights are
        new, numbers = update(now, state, found, steps=steps)
        numbers |= {"loss": here.loss, "sharpness": there.loss - here.loss}
        finite = jnp.isfinite(there.loss) & jnp.isfinite(numbers["grad_norm"])
        return advance(state, new, finite=finite), {**here.numbers, **numbers}

    return descend(e, steps=steps)._replace(train_step=train_step)


experiment = Experiment(
    model=LeNet5Modern(),
    task=Classification(num_classes=10),
    data=Tfds("fashion_mnist", train="train[:10000]", eval="train[55000:]", test="test"),
    augment=(augment.flip_left_right,),
    optimizer=partial(
        optimizers.sgd, learning_rate=0.05, momentum=0.9, weight_decay=5e-4, mask=optimizers.kernels
    ),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=128,
    epochs=5,
    eval_every=5,
    program=partial(sam, rho=0.05),
)
