"""From a traced JAX function to an ONNX model: one rule for each primitive operation."""
