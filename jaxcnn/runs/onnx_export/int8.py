"""An ONNX model in 8 bits: ONNX Runtime's static quantization, and what it costs.

Weights and inputs of convolutions and matrix products become 8-bit integers, a scale for each
filter (Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam and Kalenichenko, "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018). The range of every input is
that on examples of training. An x86 processor without an integer dot product (VNNI) adds pairs of
products in 16 bits, where large ones saturate: there the metric may be lower than where it was
measured.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import prepare, with_numbers
from jaxcnn.core.protocols import HasNumbers, Program, Tree
from jaxcnn.core.transforms import scored
from jaxcnn.data.dataset import Batch, Source
from jaxcnn.runs.evaluation import evaluate, open_checked, program_of
from jaxcnn.runs.events import Record
from jaxcnn.runs.onnx_export.runtime import session

QUANTIZED = ["Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool"]
RAW = "raw_"
CHUNK = 32  # rows that are calibrated on at a time


def quantized(proto: Any, e: Experiment, state: Tree, *, rows: int) -> tuple[Any, Record]:
    """(the model in 8 bits, {"calibrated_on", "split", "metric", "float32", "int8"}): the task's
    metric on the "eval" split of both files, as ONNX Runtime runs them.

    proto: with the model's own outputs beside the predictions; they are taken out.
    Errors: DataError where the experiment's data are gone.
    """
    source = open_checked(e, "train")
    rows = min(rows, len(source))
    names = [i.name for i in proto.graph.input]
    small = _quantize(proto, _chunks(source, names, rows))
    metric, values = e.task.metric, {}
    for name, model in (("float32", proto), ("int8", small)):
        found = evaluate(_scoring(model, e, state), state, open_checked(e, "eval"), e)
        values[name] = found[metric]
    _without_raw(small)
    return small, {"calibrated_on": rows, "split": "eval", "metric": metric, **values}


def _chunks(source: Source, names: list[str], rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Examples drawn without replacement, the same ones each time."""
    chosen = np.random.default_rng(0).permutation(len(source))[:rows].astype(np.int32)
    for start in range(0, rows, CHUNK):
        batch = source.take(chosen[start : start + CHUNK])
        yield {name: np.asarray(batch[name]) for name in names}


class _Reader:
    """What ONNX Runtime calls a CalibrationDataReader: a batch at a time, then None."""

    def __init__(self, chunks: Iterator[dict[str, np.ndarray]]):
        self._chunks = chunks

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._chunks, None)


def _quantize(proto: Any, chunks: Iterator[dict[str, np.ndarray]]) -> Any:
    import onnx  # pyright: ignore[reportMissingImports]
    from onnxruntime import quantization  # pyright: ignore[reportMissingImports]
    from onnxruntime.quantization.shape_inference import (  # pyright: ignore[reportMissingImports]
        quant_pre_process,
    )

    with tempfile.TemporaryDirectory() as folder:
        whole, ready, small = (str(Path(folder) / n) for n in ("whole", "ready", "small"))
        onnx.save(proto, whole)
        # BatchNorm is joined to the convolutions before it, so that both are one integer operation
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            small,
            _Reader(chunks),
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # an adjustment of scales for biases, which stops at a scale for each filter
            extra_options={"QDQDisableWeightAdjustForInt32Bias": True},
        )
        found = onnx.load(small)
    del found.metadata_props[:]
    found.metadata_props.extend(proto.metadata_props)
    return found


def _scoring(proto: Any, e: Experiment, state: Tree) -> Program:
    """The program whose `output_step` asks ONNX Runtime, and scores as `scored` does."""
    running = session(proto.SerializeToString())
    names = [o.name for o in proto.graph.output if o.name.startswith(RAW)]
    given = [i.name for i in proto.graph.input]
    now = with_numbers(e, state.hyperparams) if isinstance(state, HasNumbers) else e
    spec = {name: jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for name, s in e.data.spec().items()}
    whole = program_of(e, state)
    structure = jax.tree.structure(jax.eval_shape(lambda b: whole.output_step(state, b)[0], spec))

    def outputs(_: Tree, batch: Batch) -> tuple[Any, Batch]:
        raw = batch.pop("raw")
        return jax.tree.unflatten(structure, raw), prepare(now, batch)

    score = jax.jit(scored(whole._replace(output_step=outputs), e).output_step)

    def output_step(state: Tree, batch: Batch) -> Tree:
        raw = running.run(names, {name: np.asarray(batch[name]) for name in given})
        return score(state, {**batch, "raw": raw})

    return whole._replace(output_step=output_step)


def _without_raw(proto: Any) -> None:
    """Take out the outputs that served the evaluation, and the nodes that made only them."""
    kept = [o for o in proto.graph.output if not o.name.startswith(RAW)]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    wanted, nodes = {o.name for o in kept}, []
    for node in reversed(proto.graph.node):
        if any(name in wanted for name in node.output):
            nodes.append(node)
            wanted.update(node.input)
            if any(a.HasField("g") for a in node.attribute):
                wanted.update(n for a in node.attribute for x in a.g.node for n in x.input)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
