"""What `jaxcnn.runs.litert` has done in a process of its own, since a fault of the converter ends
the process. It is run as a script, and imports nothing of jaxcnn.

    python -P litert_child.py convert FOLDER    # model.vhlo, names.json -> model.tflite
    python -P litert_child.py answer FOLDER     # model.tflite, batch.npz -> answers.npz

What goes wrong is said on standard output, the last line; the libraries write to standard error.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

OWN = ("arith", "builtin", "func", "tfl")  # dialects of what can be written


def convert(folder: Path) -> None:
    """Turn StableHLO into a LiteRT flatbuffer, its signature with our names."""
    from litert_converter import converter_api_ext  # pyright: ignore[reportMissingImports]
    from litert_converter.mlir import ir, passmanager  # pyright: ignore[reportMissingImports]
    from litert_converter.mlir.dialects import stablehlo  # pyright: ignore[reportMissingImports]

    names = json.loads((folder / "names.json").read_text())
    context = ir.Context()
    converter_api_ext.prepare_mlir_context(context)
    config = converter_api_ext.ConvertToTFLConfig()
    config.canonicalizing_inf_as_min_max_float = False  # an infinity is no large number
    with context:
        module = stablehlo.deserialize_portable_artifact(
            context, (folder / "model.vhlo").read_bytes()
        )
        converter_api_ext.set_signature(
            module.operation, "serving_default", names["inputs"], names["outputs"]
        )
        converter_api_ext.run_convert_to_tfl_passes(module, passmanager.PassManager(), config)
        try:
            content = converter_api_ext.export_flatbuffer_to_bytes(module.operation)
        except ValueError as error:  # it does not say which
            left = ", ".join(sorted(_left(module.operation))) or "unknown"
            raise ValueError(f"operations that it does not express: {left}") from error
    (folder / "model.tflite").write_bytes(content)


def _left(operation: Any) -> set[str]:
    """Names of the operations that the passes left as they were; and loops, which they turn into
    LiteRT's but do not put into functions of their own, as a file has them.
    """
    dialect, _, name = operation.name.partition(".")
    if dialect not in OWN or operation.name == "tfl.while":
        return {name.removesuffix("_v1")}
    inside = [i for region in operation.regions for block in region for i in block]
    return {name for i in inside for name in _left(i.operation)}


def answer(folder: Path) -> None:
    """Ask the file row by row, as it takes them."""
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]

    ask = Interpreter(str(folder / "model.tflite")).get_signature_runner()
    batch = dict(np.load(folder / "batch.npz"))
    count = len(next(iter(batch.values())))
    rows = [ask(**{name: x[i : i + 1] for name, x in batch.items()}) for i in range(count)]
    answers: dict[str, Any] = {
        name: np.concatenate([row[name] for row in rows]) for name in rows[0]
    }
    np.savez(folder / "answers.npz", **answers)


if __name__ == "__main__":
    try:
        {"convert": convert, "answer": answer}[sys.argv[1]](Path(sys.argv[2]))
    except Exception as error:  # its errors have no class in common
        # before the operation in full, of which there may be screens
        print(" ".join(str(error).partition(": %")[0].split()))
        sys.exit(1)
