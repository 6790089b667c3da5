"""From a raw batch to the model's outputs: preparation, augmentation, the forward pass.

Images and masks, known by name (`jaxcnn.core.batch`), may be bytes and become float32 in
[0, 1] here; `mask` [B] is 1 for real rows.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcnn.core import freezing, meshes, remat
from jaxcnn.core.batch import unit_interval
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.override import replace_at
from jaxcnn.core.protocols import Batch, Collections, Tree, Variables


def fresh_variables(e: Experiment, key: jax.Array) -> Collections:
    """{"params": …, "batch_stats": …, …} as the model initializes them for one row of the data."""
    rows = {name: jnp.zeros((1, *s.shape), s.dtype) for name, s in e.data.spec().items()}
    return dict(e.model.init(key, *model_inputs(e, prepare(e, rows)), train=False))


def prepare(e: Experiment, batch: Batch, *, key: jax.Array | None = None) -> Batch:
    """The batch as model and task see it: uint8 images as float32 in [0, 1], augmented if there is
    a key, transformed; `mask` added.
    """
    rows = next(iter(batch.values())).shape[0]
    batch = unit_interval(batch)
    batch.setdefault("mask", jnp.ones((rows,), jnp.float32))
    if key is not None:
        for i, augment in enumerate(e.augment):
            batch = augment(jax.random.fold_in(key, i), batch)
    for transform in e.transform:
        batch = transform(batch)
    return batch


def model_inputs(e: Experiment, batch: Batch) -> list[jax.Array]:
    """The entries of the batch that the model takes, in order."""
    return [batch[name] for name in e.task.inputs]


def apply_model(
    e: Experiment,
    variables: Variables,
    batch: Batch,
    *,
    train: bool,
    key: jax.Array | None = None,
    mutable: bool = False,
) -> Any:
    """Outputs in float32, computed in `e.compute_dtype`; with `mutable`, (outputs, next collections
    with the dtypes of the old).

    `key` serves every name that the model asks for by `make_rng`, in training and in evaluation.
    Modules all of whose parameters are frozen run as in evaluation: they keep their statistics.
    """
    dtype = jnp.dtype(e.compute_dtype)
    params, inputs = _cast(variables["params"], dtype), _cast(model_inputs(e, batch), dtype)
    model_state = {name: value for name, value in variables.items() if name != "params"}
    params, model_state = meshes.gathered((params, model_state))
    # Flax takes "params" for every name that is not given; "dropout" is given for its own bits.
    rngs = None if key is None else {"dropout": key, "params": key}
    anew = e.remat or () if train else ()
    with freezing.as_in_evaluation(params, e.rates), remat.computed_anew(anew):
        result = e.model.apply(
            {"params": params, **model_state},
            *inputs,
            train=train,
            rngs=rngs,
            mutable=list(model_state) if mutable else False,
        )
    if not mutable:
        return _cast(result, jnp.float32)
    outputs, new = result
    new = freezing.keep_statistics(dict(new), model_state, params, e.rates)
    new = jax.tree.map(lambda new, old: new.astype(old.dtype), new, model_state)
    return _cast(outputs, jnp.float32), new


def with_numbers(e: Experiment, numbers: Mapping[str, float | jax.Array]) -> Experiment:
    """The experiment with the numbers of the state (traced arrays) in their places."""
    for path, value in numbers.items():
        e = replace_at(e, path, value)
    return e


def _cast(tree: Tree, dtype: DTypeLike) -> Tree:
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )
