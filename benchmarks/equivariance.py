"""Tables of translation equivariance and invariance: layers with random weights on test digits, and
trained runs on shifted test digits.

python benchmarks/equivariance.py [RUN …], such as runs/mnist_dense runs/mnist_convolution. Results:
docs/equivariance.md.
"""

import dataclasses
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.data.files.tfds import Tfds
from jaxcnn.layers import Conv, max_pool
from jaxcnn.ops.equivariance import equivariance_error, invariance_error, shift_image
from jaxcnn.runs.environment import prepare_process
from jaxcnn.runs.evaluation import evaluate_split
from jaxcnn.runs.open import Run

SHIFTS = tuple((0, d) for d in (0, 1, 2, 3, 4, 6))
IMAGES = 256


def print_row(name, values):
    print("| " + " | ".join([name, *values]) + " |")


def print_header(first):
    print_row(first, [f"{x} px" for _, x in SHIFTS])
    print("|" + "---|" * (len(SHIFTS) + 1))


def layers(image):
    """{name: (features, stride, margin)} with random weights."""
    first, second, third = jax.random.split(jax.random.key(0), 3)
    conv, dense = Conv(8, (5, 5)), jax.random.normal(third, (28 * 28, 28 * 28)) / 28
    params, params2 = (
        conv.init(first, image),
        Conv(8, (5, 5)).init(second, jnp.zeros((1, 28, 28, 8))),
    )

    def convolve(x):
        return jax.nn.relu(jnp.asarray(conv.apply(params, x)))

    def twice(x):
        return max_pool(
            jax.nn.relu(jnp.asarray(conv.apply(params2, max_pool(convolve(x), (2, 2))))), (2, 2)
        )

    return {
        "convolution 5x5, ReLU": (convolve, 1, 2),
        "and max-pool 2x2, stride 2": (lambda x: max_pool(convolve(x), (2, 2)), 2, 1),
        "twice that": (twice, 4, 2),
        "dense layer, 784 to 28x28, ReLU": (
            lambda x: jax.nn.relu(x.reshape(len(x), -1) @ dense).reshape(len(x), 28, 28, 1),
            1,
            0,
        ),
    }


def shifted(batch, *, shift):
    return {**batch, "image": shift_image(batch["image"], shift)}


def main(runs):
    prepare_process()
    image = (
        jnp.asarray(Tfds("mnist").open("eval").take(np.arange(IMAGES))["image"], jnp.float32) / 255
    )
    print_header("equivariance error")
    for name, (features, stride, margin) in layers(image).items():
        print_row(
            name,
            [
                f"{e:.3f}"
                for e in equivariance_error(
                    jax.jit(features), image, SHIFTS, stride=stride, margin=margin
                )
            ],
        )
    print()
    # A frame of background, so that no ink is pushed out of the picture.
    framed = jnp.pad(image, ((0, 0), (8, 8), (8, 8), (0, 0)))
    convolve = layers(image)["convolution 5x5, ReLU"][0]
    print_header("invariance error")
    print_row("convolution", [f"{e:.3f}" for e in invariance_error(convolve, framed, SHIFTS)])
    print_row(
        "and mean over all positions",
        [f"{e:.3f}" for e in invariance_error(lambda x: convolve(x).mean((1, 2)), framed, SHIFTS)],
    )
    print()
    if runs:
        print_header("accuracy on shifted test images, %")
    for run in map(Run, runs):
        experiment, accuracies = run.experiment, []
        for shift in SHIFTS:
            moved = dataclasses.replace(
                experiment, transform=(*experiment.transform, partial(shifted, shift=shift))
            )
            accuracies.append(evaluate_split(moved, run.state, "eval")["accuracy"])
        print_row(run.folder.name, [f"{100 * a:.2f}" for a in accuracies])


if __name__ == "__main__":
    main(sys.argv[1:])
