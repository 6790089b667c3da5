"""Peers of `bench`, each in a process of its own that stays alive and is asked for one block of
steps at a time (jaxcnn.bench.peers).
"""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import optax

from jaxcnn.core import optimizers
from jaxcnn.core.experiment import Experiment
from jaxcnn.errors import ConfigError, DependencyError, JaxcnnError
from jaxcnn.runs import environment
from jaxcnn.tasks.classification import Classification

# what a peer's process is given: its users' environment; ours, as far as it can be given to others
TUNINGS = ("users", "tuned")
# options of ours under which an optimizer is another than the peers' of that name
LACKING = {
    "sgd": ("decoupled", "accumulator_dtype"),
    "adam": ("nesterov", "eps_root", "mu_dtype"),
    "adamw": ("nesterov", "eps_root", "mu_dtype"),
}
INSTALL = {"torch": "pip install torch", "keras": "pip install keras"}


def require(name: str) -> None:
    """Errors: DependencyError, with what to install, where the peer's package is missing."""
    if importlib.util.find_spec(name) is None:
        raise DependencyError(
            f"--peer {name}: the package {name!r} is not installed; {INSTALL[name]}"
        )


def environments(choice: str, outside: dict[str, str]) -> dict[str, dict[str, str]]:
    """{tuning: environment} of "users", "tuned" or "both", from the environment in which we were
    started.
    """
    made = {"users": dict(outside), "tuned": environment.tuned(outside)}
    return made if choice == "both" else {choice: made[choice]}


class Peer:
    """The process of the peer `name` ("torch" or "keras"), started with `environment`, which
    `tuning` names (TUNINGS). Close it, or use it in a `with` statement.
    """

    def __init__(
        self, name: str, *, tuning: str = "users", environment: dict[str, str] | None = None
    ):
        require(name)
        self.name, self.tuning, self.params = name, tuning, 0
        self.variants: dict[str, list[str]] = {}
        self.facts: dict[str, Any] = {}
        script = Path(__file__).with_name("peers.py")
        command = [sys.executable, "-P", str(script)]  # -P: our names must not hide the peer's
        # a pipe that nobody reads would fill up; held until closed
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment or dict(os.environ),
        )
        self.pid = self._process.pid

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def open(
        self,
        e: Experiment,
        network: dict[str, Any],
        shape: tuple[int, ...],
        *,
        compile: bool = False,
        device: str = "cpu",
    ) -> None:
        """Build a network (jaxcnn.bench.definitions) for images of `shape`, with the experiment's
        batch size, dtype, optimizer, and cross entropy or the mean square as its loss, in all
        variants. Errors: ConfigError for an optimizer that peers lack; MemoryError; JaxcnnError for
        the peer's own.
        """
        classes = getattr(e.task, "num_classes", None) or getattr(e.model, "num_classes", 1)
        answer = self._ask(
            do="open",
            peer=self.name,
            network=network,
            shape=shape,
            num_classes=classes,
            batch_size=e.batch_size,
            dtype=e.compute_dtype,
            optimizer=optimizer_of(e),
            loss="cross_entropy" if isinstance(e.task, Classification) else "square",
            compile=compile,
            device=device,
            threads=int(os.environ.get("NPROC") or 0),
        )
        self.params, self.variants = answer["params"], answer["variants"]
        package = network.get("package")
        self.facts = {
            **{name: answer[name] for name in ("params", "version", "device", "left_out")},
            "definition": f"{package} {network['name']}" if package else "list of layers",
        }

    def time(self, kind: str, variant: str, steps: int) -> float:
        """Seconds of a block of training or inference steps."""
        return self._ask(do="time", kind=kind, variant=variant, steps=steps)["seconds"]

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or [
                "it was killed, perhaps for want of memory"
            ]
            raise JaxcnnError(f"--peer {self.name}: its process ended: {last[0]}")
        answer = json.loads(line)
        if answer.get("memory"):
            raise MemoryError(f"--peer {self.name}: {answer['error']}")
        if "error" in answer:
            raise JaxcnnError(f"--peer {self.name}: {answer['error']}")
        return answer


def optimizer_of(e: Experiment) -> dict[str, Any]:
    """The experiment's optimizer in PyTorch's words: {"name": "sgd" | "adam" | "adamw",
    "learning_rate", …}. Errors: ConfigError.
    """
    factory = e.optimizer.func if isinstance(e.optimizer, partial) else e.optimizer
    given = (
        (e.optimizer.args, e.optimizer.keywords) if isinstance(e.optimizer, partial) else ((), {})
    )
    names = {optimizers.sgd: "sgd", optax.sgd: "sgd", optax.adam: "adam", optax.adamw: "adamw"}
    if factory not in names:
        raise ConfigError(
            f"--peer: the optimizer {getattr(factory, '__name__', factory)} has no counterpart; "
            "there is one for sgd, adam, adamw"
        )
    bound = inspect.signature(factory).bind_partial(*given[0], **given[1])
    bound.apply_defaults()
    numbers, name = bound.arguments, names[factory]
    lacking = [option for option in LACKING[name] if numbers.get(option)]
    if callable(numbers["learning_rate"]) or lacking:
        what = f"{lacking[0]}={numbers[lacking[0]]}" if lacking else "a schedule as learning_rate"
        raise ConfigError(
            f"--peer: {name} with {what} has no counterpart; set it with optimizer.NAME=VALUE, or "
            "bench without --peer"
        )
    result = {"name": name, "learning_rate": float(numbers["learning_rate"])}
    if name == "sgd":
        result |= {
            "momentum": float(numbers["momentum"] or 0),
            "nesterov": bool(numbers["nesterov"]),
        }
    else:
        result |= {
            "betas": (float(numbers["b1"]), float(numbers["b2"])),
            "eps": float(numbers["eps"]),
        }
    decay = numbers.get("weight_decay") or 0.0
    # theirs of AdamW is not 0 by default
    return {**result, "weight_decay": float(decay)} if decay or name == "adamw" else result
