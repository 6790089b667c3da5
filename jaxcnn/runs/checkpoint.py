"""The checkpoints of a run: states in sealed files (jaxcnn.weights.files), the newest two and the
best. A file is verified before use; a damaged one is set aside and the one before it is used.
"""

import dataclasses
import os
from collections.abc import Callable, Collection
from pathlib import Path

import jax
import numpy as np

from jaxcnn.core import trees
from jaxcnn.core.protocols import AnyState, Tree
from jaxcnn.errors import CheckpointError, ResourceError
from jaxcnn.weights import files
from jaxcnn.weights.identity import NAME, metadata_of, read_checkpoint

Template = Tree  # a state of the expected structure; shapes will do
Arrays = dict[str, np.ndarray]


def to_arrays(state: Tree) -> Arrays:
    """{'params/Conv_0/kernel': host array, …} of a state; PRNG keys become their uint32 data. On
    CPU the arrays are the state's own memory.
    """
    leaves = trees.flatten(state)
    return dict(zip(leaves, jax.device_get([trees.raw(x) for x in leaves.values()]), strict=True))


def from_arrays(template: Template, arrays: Arrays, *, source: str) -> Tree:
    """`arrays` in the structure of `template`.

    Errors: CheckpointError listing all that differs.
    """
    wanted = trees.flatten(template)
    problems = [f"missing {n}" for n in wanted if n not in arrays]
    problems += [f"unknown {n}" for n in arrays if n not in wanted]
    for name in wanted.keys() & arrays.keys():
        expected, found = jax.eval_shape(trees.raw, wanted[name]), arrays[name]
        if (expected.shape, expected.dtype) != (found.shape, found.dtype):
            problems.append(
                f"{name}: {found.dtype}{list(found.shape)} in the file, "
                f"{expected.dtype}{list(expected.shape)} expected"
            )
    if problems:
        shown = "\n  ".join(sorted(problems)[:20])
        raise CheckpointError(
            f"{source}: does not fit this experiment ({len(problems)} differences)\n  {shown}"
        )
    structure = jax.tree.structure(template)
    leaves = [_restore(leaf, arrays[name]) for name, leaf in wanted.items()]
    return jax.tree.unflatten(structure, leaves)


def digest(state: Tree) -> str:
    """SHA-256 (hex) of all bytes of a state, with names, dtypes and shapes: equal only for states
    equal in every bit.
    """
    return files.digest(to_arrays(state))


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: `last-<step>` (the newest `keep` are kept, so that a damaged one
    has a predecessor) and `best-<step>`: the best of now, and the best as of each `last` that is
    kept, so that a run that falls back finds its best one, too.

    run: the identity in run.json; files of other runs are refused. writes: whether `save` does
    anything: of several hosts that train a run together one saves.
    """

    folder: Path
    run: str | None = None
    keep: int = 2
    writes: bool = True

    def save(self, state: Tree, *, step: int, best: bool = False) -> str | None:
        """Write `state`; with `best`, also as the best one. Returns its digest.

        Errors: ResourceError; older checkpoints are kept.
        """
        return self.write(to_arrays(state), step=step, best=best) if self.writes else None

    def write(self, arrays: Arrays, *, step: int, best: bool = False) -> str:
        """As `save`, of a state's arrays."""
        metadata = metadata_of(run=self.run, step=step, best=best)
        last = self._path("last", step)
        if best:  # first: after a kill in between, the evaluation before it is made again
            digest = files.write_arrays(self._path("best", step), arrays, metadata)
            _same_file(self._path("best", step), last)
        else:
            digest = files.write_arrays(last, arrays, metadata)
        self.prune(self.keep)
        return digest

    def prune(self, keep: int) -> list[Path]:
        """Remove all but the newest `keep` and the best ones that belong to them; what was removed.

        Errors: ResourceError.
        """
        last, best = self._files("last")[-keep:], self._files("best")
        needed = set(last + best[-1:])
        for path in last:
            needed.update([b for b in best if _step_of(b) <= _step_of(path)][-1:])
        surplus = [path for path in self._files("last") + best if path not in needed]
        _remove(surplus)
        return surplus

    def forget(self, *, after: int) -> None:
        """Remove what lies after the step that a run goes on from: it is made again, and until then
        would be taken for its newest or its best. And what a kill between writing and removing left
        too many: a run at its last step saves no more. Errors: ResourceError.
        """
        _remove([path for path in self._candidates("last") if _step_of(path) > after])
        self.prune(self.keep)

    def clean(self) -> None:
        """Remove what a killed writer left."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """All of them in the order of steps, those that were set aside, too."""
        found = [*self.folder.glob("*.safetensors"), *self.folder.glob("*.safetensors.damaged")]
        named = [(path, NAME.fullmatch(path.name.removesuffix(".damaged"))) for path in found]
        return [path for _, path in sorted((int(m[2]), path) for path, m in named if m)]

    def steps(self, *, kind: str = "last") -> list[int]:
        """The steps of which there is a file, newest first; a "best" one will do for "last"."""
        return sorted({_step_of(path) for path in self._candidates(kind)}, reverse=True)

    def restore(
        self,
        template: Template,
        *,
        kind: str = "last",
        among: Collection[int] | None = None,
        set_aside: bool = True,
        warn: Callable[[str], None] = lambda message: None,
    ) -> tuple[AnyState, int] | None:
        """(state, step) of the newest good checkpoint (of those of the steps `among`); None if
        there never was one.

        A damaged one is reported through `warn`, `set_aside` as `<name>.damaged` (not by a reader,
        who may look on while the run trains), and the one before it is used ("last" may fall back
        to "best").
        Errors: CheckpointError if all are damaged, or if the state does not fit `template` (the
        experiment's code has changed).
        """
        # Sorting is stable: of a "last" and a "best" one of the same step the last is tried first.
        files = sorted(self._candidates(kind), key=_step_of)
        for path in reversed(files):
            if among is not None and _step_of(path) not in among:
                continue
            try:
                arrays, _ = read_checkpoint(path, run=self.run)
            except CheckpointError as error:
                warn(f"{error}; falling back to the checkpoint before it")
                if set_aside and os.access(path.parent, os.W_OK):
                    path.replace(path.with_name(path.name + ".damaged"))
                continue
            return from_arrays(template, arrays, source=str(path)), _step_of(path)
        if among is None and (files or self.damaged(kind=kind)):
            raise CheckpointError(
                f"{self.folder}: every '{kind}' checkpoint is damaged or not this run's; put the "
                "right ones back, or start a new run (nothing here was deleted)"
            )
        return None

    def damaged(self, *, kind: str = "last") -> bool:
        """Whether one was set aside."""
        return any(self.folder.glob(f"{kind}-*.damaged"))

    def _candidates(self, kind: str) -> list[Path]:
        return self._files("best") + self._files("last") if kind == "last" else self._files(kind)

    def _path(self, kind: str, step: int) -> Path:
        return self.folder / f"{kind}-{step:09d}.safetensors"

    def _files(self, kind: str) -> list[Path]:
        """In the order of steps."""
        found = self.folder.glob(f"{kind}-*.safetensors")
        return sorted((path for path in found if NAME.fullmatch(path.name)), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _remove(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(f"{path}: cannot be removed ({error.strerror})") from error


def _same_file(existing: Path, new: Path) -> None:
    """`new` as a second name of `existing`, atomically; a copy where there are no hard links."""
    temporary = new.with_name(f".{new.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(existing, temporary)
        except OSError:
            temporary.write_bytes(existing.read_bytes())
        os.replace(temporary, new)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ResourceError(
            f"{new}: cannot be written ({error.strerror}); free disk space or choose another "
            "--run-dir"
        ) from error


def _restore(leaf: jax.Array | jax.ShapeDtypeStruct, array: np.ndarray) -> jax.Array:
    if trees.is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.asarray(array))
    return jax.numpy.asarray(array)
