"""The other side of `bench --peer`: the same network in PyTorch or Keras, timed one block of steps
at a time.

Runs as a script in a process of its own; of jaxcnn it imports the module of its peer, which imports
nothing more of it, and, for Keras under our malloc, what we do for ourselves after compiling. It is
asked by JSON objects, one a line, on standard input, and answers likewise
on standard output:

    {"do": "open", "peer", "network" {"layers"} (jaxcnn.bench.networks) or {"package", "name",
     "arguments"}, "shape" [*spatial, C], "num_classes", "batch_size", "dtype", "optimizer", "loss"
     "cross_entropy" or "square", "compile", "device" "cpu" or "gpu", "threads"}
       -> {"params", "variants" {kind: names}, "left_out" {variant: why}, "version", "device"}
    {"do": "time", "kind": "train" or "inference", "variant", "steps"}  -> {"seconds"}

or {"error", "memory"} where something went wrong; `memory` says that there was too little. A block
starts and ends with an idle device.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = ("OutOfMemory", "RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory")


def main() -> None:
    """Answer requests until standard input ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.append(str(Path(__file__).parents[2]))  # last: none of our names hides a peer's
    timers: dict[str, dict[str, Callable[[int], float]]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.pop("do") == "open":
                timers.clear()  # frees the memory of the network before
                answer, opened = _open(request.pop("peer"), request)
                timers.update(opened)
            else:
                answer = {"seconds": timers[request["kind"]][request["variant"]](request["steps"])}
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            answer = {"error": text.splitlines()[0], "memory": is_out_of_memory(error)}
        print(json.dumps(answer), file=answers, flush=True)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice."""
    text = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or any(word in text for word in OUT_OF_MEMORY)


def _open(peer: str, request: dict[str, Any]) -> tuple[dict, dict]:
    """(the answer, timers) of "torch" or "keras"."""
    if peer == "keras" and os.environ.get("MALLOC_ARENA_MAX") == "1":  # tuned as we are
        importlib.import_module("jaxcnn.runs.fragments").set_aside_after_compiling()
    module = importlib.import_module(f"jaxcnn.bench.{peer}_peer")
    return module.open_network(**request)


if __name__ == "__main__":
    main()
