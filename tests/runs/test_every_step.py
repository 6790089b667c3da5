"""Every family of models and every optimizer: from the file of whichever step, a run goes on to the
bits of one that was never stopped; and those are the bits of steps that write to memory of their
own, in place of that of the state before.

The step is compiled once, so that each step of a short run can be tried. What is added in a whole
run, history, evaluations, order of the data, is tried at each step in tests/runs/test_loop.py. A
family is tried with AdamW, whose state is as large as any; an optimizer with a net that has
convolutions, BatchNorm and dropout: its state has the form of the parameters, whosever they are.
"""

import dataclasses
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.core.remat import KEEP_BARRIERS
from jaxcnn.core.transforms import compile, scored
from jaxcnn.data.dataset import batch_indices
from jaxcnn.data.memory import Arrays
from jaxcnn.models import build
from jaxcnn.runs.checkpoint import Checkpoints, digest
from jaxcnn.runs.code import load
from jaxcnn.tasks.classification import Classification
from tests.conftest import ROOT
from tests.test_experiments import data_of
from tests.tiny import tiny

STEPS, BATCH = 4, 2
ADAMW = partial(optax.adamw, learning_rate=1e-3, weight_decay=0.01)


def classifier(name: str, side: int) -> Experiment:
    """A net by its name, on small random pictures of 3 classes."""
    random = np.random.default_rng(0)
    rows = {
        "image": random.integers(0, 256, (8, side, side, 3)).astype(np.uint8),
        "label": np.arange(8, dtype=np.int32) % 3,
    }
    model, _ = build(name, num_classes=3)
    task, data = Classification(num_classes=3), Arrays(rows, rows)
    return Experiment(model=model, task=task, data=data, optimizer=ADAMW)


def file(name: str) -> Experiment:
    return load(ROOT / "experiments" / f"{name}.py", overrides=[])


def lookahead(learning_rate: float = 1e-3):
    return optimizers.lookahead(optax.adam(learning_rate), period=2)


# every module of jaxcnn.models; the quick ones in every run of the tests
FAMILIES = {
    "alexnet": partial(classifier, "alexnet", 67),
    "captioning": partial(file, "scenes_captioning"),
    "convnext": partial(classifier, "convnext_tiny", 32),
    "crnn": partial(file, "scenes_ocr"),
    "deeplab": partial(file, "pets_deeplab"),
    "densenet": partial(classifier, "densenet_cifar", 32),
    "detection": partial(file, "scenes_detection"),
    "efficientnet": partial(classifier, "efficientnet_b0", 32),
    "fashion": partial(file, "fashion_mnist_cnn"),
    "googlenet": partial(classifier, "googlenet", 80),
    "handcrafted": partial(file, "fashion_mnist_learned"),
    "inception": partial(classifier, "inception_v3", 299),
    "instances": partial(file, "scenes_instances"),
    "keypoints": partial(file, "scenes_keypoints"),
    "lenet": partial(file, "digits_lenet5"),
    "localization": partial(file, "scenes_localization"),
    "mlp": partial(file, "xor_mlp"),
    "mobilenet": partial(classifier, "mobilenet_v2", 32),
    "resnet": partial(classifier, "resnet18", 32),
    "signals": partial(file, "osuleaf_fcn"),
    "speed": partial(classifier, "speednet", 32),
    "style_transfer": partial(file, "photos_style_feedforward"),
    "super_resolution": partial(file, "photos_super_resolution"),
    "text": partial(file, "spam_text_cnn"),
    "text_detection": partial(file, "scenes_text_detection"),
    "unet": partial(file, "scenes_segmentation"),
    "vgg": partial(classifier, "vgg11", 32),
    "video": partial(file, "mnist_motion_3d"),
}
QUICK = ("mlp", "lenet")
OPTIMIZERS = {
    "sgd": partial(optax.sgd, learning_rate=0.01),
    "momentum": partial(optax.sgd, learning_rate=0.01, momentum=0.9),
    "nesterov, decay": partial(
        optimizers.sgd, learning_rate=0.01, momentum=0.9, nesterov=True, weight_decay=0.1
    ),
    "rmsprop": partial(optax.rmsprop, learning_rate=1e-3),
    "adagrad": partial(optax.adagrad, learning_rate=1e-2),
    "adam": partial(optax.adam, learning_rate=1e-3),
    "adamw": ADAMW,
    "lion": partial(optax.lion, learning_rate=1e-4),
    "lamb": partial(optax.lamb, learning_rate=1e-3),
    "muon": partial(optimizers.muon, learning_rate=1e-3),
    "lookahead": lookahead,
    "schedule-free": partial(optax.contrib.schedule_free_adamw, learning_rate=1e-3),
}


def test_no_family_is_left_out():
    modules = {p.stem for p in (ROOT / "jaxcnn/models").glob("*.py")} - {"__init__"}
    assert modules == set(FAMILIES)


def check(e: Experiment, source, folder) -> None:
    """Train `STEPS` steps, saving after each; from each file to the end again."""
    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm promotes bfloat16
        plain = scored(make_program(e, steps=STEPS), e)
        program = compile(plain)
        checkpoints = Checkpoints(folder, keep=STEPS)

        def go_on(state, start: int, after=lambda state, step: None, by=program.train_step):
            for step in range(start, STEPS):
                rows = batch_indices(e.seed, step, size=len(source), batch_size=BATCH)
                state, _ = by(state, source.take(rows))
                after(state, step + 1)
            return state

        start = program.init(jax.random.key(e.seed))
        template, begun = jax.eval_shape(lambda s: s, start), digest(start)
        save = lambda state, step: checkpoints.save(state, step=step)  # noqa: E731
        whole = digest(go_on(start, 0, save))
        assert whole != begun
        apart = jax.jit(plain.train_step, compiler_options=KEEP_BARRIERS)
        assert digest(go_on(program.init(jax.random.key(e.seed)), 0, by=apart)) == whole
        for step in range(1, STEPS):
            state, found = checkpoints.restore(template, among={step})
            assert (found, int(state.step)) == (step, step)
            assert digest(go_on(state, step)) == whole, f"resumed at step {step}"


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in FAMILIES],
)
def test_every_family_resumes_at_every_step(family, tmp_path):
    e = FAMILIES[family]()
    source = data_of(e)
    small = {"batch_size": BATCH, "accumulate": 1, "steps": STEPS, "optimizer": ADAMW}
    check(dataclasses.replace(e, **small), source, tmp_path)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "lion" else pytest.mark.slow) for n in OPTIMIZERS],
)
def test_every_optimizer_resumes_at_every_step(name, tmp_path):
    # an optimizer that averages the weights itself takes neither a schedule nor an average
    alone = {"schedule": schedules.constant, "ema": None} if name == "schedule-free" else {}
    e = tiny(optimizer=OPTIMIZERS[name], batch_size=BATCH, steps=STEPS, **alone)
    check(e, e.data.open("train"), tmp_path)
