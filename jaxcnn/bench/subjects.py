"""What `bench` times: experiments, and models by name on noise."""

import dataclasses
from functools import partial

import jax

from jaxcnn import models
from jaxcnn.bench import measure
from jaxcnn.core import optimizers
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.override import override_all, replace_at
from jaxcnn.data.dataset import Source
from jaxcnn.data.made.synthetic import Synthetic
from jaxcnn.errors import ConfigError, JaxcnnError
from jaxcnn.runs import code
from jaxcnn.runs.check import abstract_state
from jaxcnn.runs.evaluation import open_checked
from jaxcnn.tasks.classification import Classification

# what a peer does not do, and what an experiment without it has
PLAIN = {"augment": (), "clip_norm": None, "accumulate": 1, "ema": None, "rates": ()}
NUM_NOISE = 256  # random examples, where there are no others


@dataclasses.dataclass
class Subject:
    """An experiment to be timed: what was taken from it, and where its batches come from."""

    name: str
    experiment: Experiment
    dropped: list[str]
    synthetic: bool
    _source: Source | None = None

    def source(self) -> Source:
        """The training split, or random examples like it; opened when first needed."""
        if self._source is None:
            self._source = (
                measure.Noise(self.experiment, NUM_NOISE)
                if self.synthetic
                else open_checked(self.experiment, "train")
            )
        return self._source


def choose(name: str, overrides: list[str], *, bare: bool, synthetic: bool) -> Subject:
    """The subject of an experiment or a model by name.

    bare: for a comparison, without what a peer does not do, such as augmentation. synthetic: with
    random examples; a model has no others.
    Errors: ConfigError.
    """
    by_name = name in models.MODELS and name not in code.files()
    e = (
        model_experiment(name, overrides)
        if by_name
        else code.load(code.find(name), overrides=overrides)
    )
    dropped = []
    if bare:
        dropped = [field for field, value in PLAIN.items() if getattr(e, field) != value]
        e = dataclasses.replace(e, **PLAIN)
    abstract_state(e)  # a clear error where model and data do not fit
    return Subject(name, e, dropped, synthetic or by_name)


def model_experiment(name: str, overrides: list[str]) -> Experiment:
    """An experiment that trains a model by name on noise: SGD with momentum, 32 images a step;
    data.shape=H,W,C changes their size.
    """
    if name in models.TOKEN_MODELS:
        raise ConfigError(
            f"{name}: takes tokens, not images; name an experiment that uses it (`python "
            "launch.py list`)"
        )
    model, shape = models.build(name)
    optimizer = partial(optimizers.sgd, learning_rate=0.001, momentum=0.9)
    e = Experiment(
        model=model,
        task=measure.SquaredOutputs(),
        data=Synthetic(shape=shape),
        optimizer=optimizer,
        batch_size=32,
        steps=1000,
    )
    e = override_all(e, overrides)
    shape, key = e.data.spec()["image"].shape, jax.random.key(0)
    try:
        image = jax.ShapeDtypeStruct((2, *shape), "float32")
        variables = jax.eval_shape(lambda x: e.model.init(key, x, train=False), image)
        rngs = {"params": key}
        outputs = jax.eval_shape(
            lambda v, x: e.model.apply(v, x, train=False, rngs=rngs), variables, image
        )
    except JaxcnnError:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{name}: refuses images of shape {list(shape)}: {error}; choose "
            "data.shape=HEIGHT,WIDTH,CHANNELS"
        ) from error
    if isinstance(outputs, jax.ShapeDtypeStruct) and outputs.ndim == 2 and outputs.shape[1] > 1:
        classes = outputs.shape[1]
        e = replace_at(e, "task", Classification(num_classes=classes))
        e = replace_at(e, "data.num_classes", classes)
    return e
