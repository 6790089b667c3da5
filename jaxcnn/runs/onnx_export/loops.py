"""The rule for `scan`: a node whose body is a graph."""

from typing import Any

import numpy as np

from jaxcnn.runs.onnx_export.graph import Graph, Value, made, rule


@rule("scan")
def _scan(g: Graph, eqn: Any, *values: Value) -> list[Value]:
    p = eqn.params
    consts, count = p["num_consts"], p["num_carry"]
    called, backwards = p["jaxpr"], int(p["reverse"])
    sequences = list(values[consts + count :])
    outer = [*map(g.tensor, values[consts:])]
    if not sequences:  # ONNX counts by a sequence
        outer.append(g.constant(np.zeros(p["length"], np.float32)))
    body = Graph(g.rows, parent=g)
    inner = list(values[:consts])
    for variable in called.jaxpr.invars[consts:]:
        name = body.fresh("given")
        body.inputs.append((name, variable.aval.dtype))
        inner.append(Value(tuple(variable.aval.shape), variable.aval.dtype, name=name))
    if not sequences:
        body.inputs.append((body.fresh("given"), np.dtype(np.float32)))
    for value in body.inline(called.jaxpr, called.consts, inner):
        # what is handed out is made in the body, each under a name of its own
        body.outputs += body.add("Identity", body.tensor(value))
    given, left = max(len(sequences), 1), len(body.outputs) - count
    names = g.add(
        "Scan",
        *outer,
        outputs=len(body.outputs),
        body=body,
        num_scan_inputs=given,
        scan_input_directions=[backwards] * given,
        **({"scan_output_directions": [backwards] * left} if left else {}),
    )
    return [made(eqn, name, index=i) for i, name in enumerate(names)]
