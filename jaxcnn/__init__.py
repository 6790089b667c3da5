"""jaxcnn: a functional training framework for convolutional networks on JAX.

    import jaxcnn
    run = jaxcnn.train("digits_lenet5", "runs/first", overrides=["epochs=5"])
    run.history, run.evaluate("eval"), run.predict("photos/"), run.export("model.jax")
    jaxcnn.open("runs/first").predict("digit.png")

Importing this package imports nothing else; a name is looked up when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.core.experiment import Experiment as Experiment
    from jaxcnn.core.experiment import Objective as Objective
    from jaxcnn.core.forward import apply_model as apply_model
    from jaxcnn.core.forward import prepare as prepare
    from jaxcnn.core.program import State as State
    from jaxcnn.core.program import descend as descend
    from jaxcnn.core.program import gradient as gradient
    from jaxcnn.core.program import make_program as make_program
    from jaxcnn.core.program import supervised as supervised
    from jaxcnn.core.protocols import Program as Program
    from jaxcnn.runs.code import load as load
    from jaxcnn.runs.events import Event as Event
    from jaxcnn.runs.events import Observer as Observer
    from jaxcnn.runs.open import Run as Run
    from jaxcnn.runs.open import evaluate as evaluate
    from jaxcnn.runs.open import open as open
    from jaxcnn.runs.replay import verify as verify
    from jaxcnn.runs.trackers import track as track
    from jaxcnn.runs.train import train as train

__version__ = "0.1.0"

_HOME = {
    "Experiment": "core.experiment",
    "Objective": "core.experiment",
    **dict.fromkeys(("apply_model", "model_inputs", "prepare", "with_numbers"), "core.forward"),
    **dict.fromkeys(("State", "advance", "descend", "evaluation_variables"), "core.program"),
    **dict.fromkeys(("Gradient", "gradient", "make_optimizer"), "core.program"),
    **dict.fromkeys(("make_program", "supervised", "update"), "core.program"),
    "Program": "core.protocols",
    "load": "runs.code",
    "Event": "runs.events",
    "Observer": "runs.events",
    "Run": "runs.open",
    "evaluate": "runs.open",
    "open": "runs.open",
    "track": "runs.trackers",
    "train": "runs.train",
    "verify": "runs.replay",
}
__all__ = [*_HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A public name, imported from where it lives; the process is prepared for JAX before that."""
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module 'jaxcnn' has no attribute {name!r}")
    importlib.import_module("jaxcnn.runs.environment").prepare_process()
    return getattr(importlib.import_module(f"jaxcnn.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
