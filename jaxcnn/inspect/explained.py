"""What is explained: the network of a trained state as a pure function of pictures, and the score
of one of its classes.

Pictures are float32 [B, H, W, C] in [0, 1], in the size of training, before the experiment's
`transform` (a normalization, …), which belongs to the network here: attributions are of what is
seen in the picture.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcnn.core.batch import kind
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.core.protocols import Tree
from jaxcnn.errors import ConfigError
from jaxcnn.inspect import attribution, class_activation
from jaxcnn.inspect.taps import Network, Score
from jaxcnn.ops import convolution

Method = Callable[[jax.Array, Score, jax.Array, str | None], jax.Array]


def _integrated(key: jax.Array, score: Score, images: jax.Array, layer: str | None) -> jax.Array:
    return attribution.total(attribution.integrated_gradients(score, images))


# Maps of pictures by name: (key, score, pictures [B, H, W, C], layer) -> [B, H, W]
MAPS: dict[str, Method] = {
    "gradcam": lambda _, score, x, layer: class_activation.grad_cam(score, x, layer=layer),
    "layercam": lambda _, score, x, layer: class_activation.layer_cam(score, x, layer=layer),
    "gradient": lambda _, score, x, __: attribution.heat(attribution.gradient(score, x)),
    "integrated": _integrated,
    "smoothgrad": lambda key, score, x, _: attribution.heat(attribution.smooth_grad(key, score, x)),
    "occlusion": lambda _, score, x, __: attribution.occlusion(score, x),
}


def picture_of(e: Experiment) -> tuple[str, tuple[int, int, int]]:
    """(name, [H, W, C]) of the one picture that the model takes.

    Errors: ConfigError for a model of something else (signals, films, several inputs).
    """
    spec = e.data.spec()
    names = [name for name in e.task.inputs if name not in e.task.training_inputs]
    shapes = {name: tuple(spec[name].shape) for name in names}
    (name, shape), *others = shapes.items()
    if others or kind(name) != "image" or len(shape) != 3:
        taken = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigError(
            f"explain: this model takes {taken}; only a model of one picture [height, width, "
            "channels] is explained"
        )
    return name, shape


def network(e: Experiment, state: Tree) -> Network:
    """The model in evaluation, with a state's averaged weights where it has them: a pure function
    of pictures to outputs in float32. What the model takes in training alone is zeros.

    Its layers are those that `summary` names. Errors: ConfigError, see `picture_of`.
    """
    name, _ = picture_of(e)
    program, spec = make_program(e, steps=1), e.data.spec()

    def outputs(images: jax.Array) -> Tree:
        rows = images.shape[0]
        known = {n: spec[n] for n in e.task.training_inputs}
        batch = {n: jnp.zeros((rows, *s.shape), s.dtype) for n, s in known.items()}
        # as summary does: other formulations join layers, whose maps would then be others
        with convolution.formulation("natural"):
            return program.output_step(state, {**batch, name: images})[0]

    return outputs


def predicted(e: Experiment, model: Network, images: jax.Array) -> jax.Array:
    """What is explained of each picture unless something else is asked for: the number of the
    predicted class, int32 [B]. Errors: ConfigError for a task without such scores.
    """
    return e.task.explained(model(images))[1]


def target_score(e: Experiment, model: Network, target: jax.Array | int) -> Score:
    """The score of class `target` (one for all, or int32 [B]) as a function of pictures, [B]
    float32: a logit, or what the task calls so (`Task.explained`). For the predicted class, take
    what `predicted` says of the pictures themselves, so that it is the same class for all that is
    made of them.

    Errors: ConfigError for a task without such scores.
    """

    def score(images: jax.Array) -> jax.Array:
        scores, _ = e.task.explained(model(images))
        chosen = jnp.broadcast_to(jnp.asarray(target, jnp.int32), scores.shape[:1])
        return jnp.take_along_axis(scores, chosen[:, None], axis=1)[:, 0]

    return score
