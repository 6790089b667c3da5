"""What every recipe is held to: it is trained, stopped and resumed to the same bits, and three
replicas in one vmapped program are what three runs are.
"""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcnn.errors import Preempted
from jaxcnn.runs.code import module_of
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.train import train
from tests.conftest import ROOT
from tests.tiny import fit, stop_at


def recipe(name):
    """The module of an experiment file."""
    return module_of(ROOT / "experiments" / f"{name}.py")


def check_resume(e, folder, *, at=4):
    """A run that SIGTERM stops at step `at` resumes to the bits of one that was never stopped."""
    whole = fit(e, folder / "whole")
    with pytest.raises(Preempted, match=f"step {at} of"):
        fit(e, folder / "stopped", observe=[stop_at(at)])
    resumed = fit(e, folder / "stopped", resume=True)
    assert resumed["completed"]
    assert resumed["state_sha256"] == whole["state_sha256"]
    assert resumed["eval"] == whole["eval"]


def check_replicas(e, folder):
    """After the run's steps no parameter of three vmapped replicas is further than 1e-6 from that
    of its solo run.
    """
    together = train(
        e, folder / "sweep", points=[{"seed": i} for i in range(3)], way="vmap", quiet=True
    )
    finals = []
    for i, replica in enumerate(together.replicas):
        alone = dataclasses.replace(e, seed=i)
        fit(alone, folder / f"solo{i}")
        finals.append(jax.device_get(open_run(folder / f"solo{i}").state.params))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
            jax.device_get(replica.state.params),
            finals[-1],
        )
    first, second = (np.concatenate([x.ravel() for x in jax.tree.leaves(f)]) for f in finals[:2])
    assert np.abs(first - second).max() > 1e-2, "the seeds make no difference"
