"""Which replicas of a sweep can be one model, and on which data that model can be scored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.rendering import Json, render
from jaxcnn.data.algebra import Fold
from jaxcnn.data.recorded import Recorded
from jaxcnn.errors import ConfigError
from jaxcnn.runs import code


class Replica(NamedTuple):
    """What is asked of a run of a sweep; `record`: its run.json."""

    folder: Path
    record: dict[str, Any]
    experiment: Experiment


# what makes outputs of a state and a batch: an ensemble has one of each for all its states
OF_OUTPUTS = {
    "model": "models",
    "transform": "transforms",
    "compute_dtype": "compute dtypes",
    "program": "programs",
}


def check_one_model(folder: Path, replicas: Sequence[Replica]) -> None:
    """ConfigError for replicas whose outputs are made in different ways: the first's would be taken
    for all.
    """
    for name, words in OF_OUTPUTS.items():
        first, *others = [render(getattr(run.experiment, name)) for run in replicas]
        for other in others:
            if found := code.differences(first, other, path=name, words=("in one", "in another")):
                raise ConfigError(
                    f"{folder}: the replicas have different {words}; choose one, e.g. "
                    f"{replicas[0].folder} ({found[0]})"
                )


def check_split(folder: Path, replicas: Sequence[Replica], split: str) -> None:
    """ConfigError for a split of the replicas' own data on which they cannot be scored together:
    it is another one for each, or was trained on by some.
    """
    folds = {(data.k, data.n) for run in replicas if isinstance(data := run.experiment.data, Fold)}
    folded = len(folds) > 1 or any("fold" in run.record.get("point", {}) for run in replicas)
    if folded and split != "test":
        raise ConfigError(
            f"{folder}: each fold's examples were trained on by the models of the other "
            f"folds; evaluate these together on 'test' or on other data, not on {split!r}"
        )
    first, *others = [_data_of(run) for run in replicas]
    for other in others:
        if found := code.differences(first, other, path="data", words=("in one", "in another")):
            raise ConfigError(
                f"{folder}: the replicas were trained on different data ({found[0]}), so that "
                f"{split!r} is not the same for all; say on which they are evaluated together, by "
                "--data PATH=VALUE, or evaluate each by --replica"
            )


def _data_of(run: Replica) -> Json:
    """What names the data of a replica, of a fold those that it is a fold of; None where they are
    gone, which is said when they are opened.
    """
    data = run.experiment.data
    if isinstance(data, Recorded):
        return None
    return render(data.data if isinstance(data, Fold) else data)
