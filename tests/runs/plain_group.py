"""Groups of replicas whose programs are plain numbers, for tests of the loop."""

import dataclasses
from types import SimpleNamespace

import numpy as np

from jaxcnn.errors import DataError
from jaxcnn.runs import loop
from jaxcnn.runs.evaluation import Best
from jaxcnn.runs.group import Group
from jaxcnn.runs.ways import Bundle, Way
from tests.runs.test_stopping import State
from tests.tiny import tiny

STEPS = 12


class Rows:
    """Fifty rows; of a step on they cannot be read."""

    streaming, arrays = True, None

    def __init__(self, broken=None):
        self.broken, self.taken = broken, []

    def __len__(self):
        return 50

    def take(self, indices):
        self.taken.append(indices)
        if self.broken and len(self.taken) > self.broken:
            raise DataError("a picture is gone")
        return {"rows": np.asarray(indices)}


@dataclasses.dataclass(eq=False)
class One:
    """What the loop asks of a replica."""

    index: int
    experiment: object
    point: dict
    stopped: dict | None = None
    folder: str = "run"
    best: Best = None
    seen: list = dataclasses.field(default_factory=list)

    @property
    def history(self):
        return SimpleNamespace(evaluations=lambda: self.seen)


class Plain(Way):
    """A way whose programs count steps; a loss is the step, and 100 more for each further replica
    of its bundle.
    """

    def resized(self, replicas):
        return Plain(self.kind, Way.from_text(self.text(), replicas).sizes)

    def bundles(self, program, *, layout):
        def of(count, kind):
            def one_step(state, batch):
                step = state.step + 1
                further = 100 * np.arange(count) if kind == "vmap" else 0
                loss = np.float64(np.max(step)) + further
                program.seen.append(np.asarray(batch["rows"]).shape)
                bad = program.bad.get(int(np.max(step)))
                return state._replace(step=step), {
                    "loss": loss,
                    "more": loss * np.nan if bad else loss,
                }

            def many(state, batch):
                told = []
                for rows in batch["rows"]:
                    state, numbers = one_step(state, {"rows": rows})
                    told.append(numbers)
                return state, {name: np.stack([n[name] for n in told]) for name in told[0]}

            output = (kind, count)
            single = SimpleNamespace(train_step=one_step, output_step=output)
            return Bundle(kind, count, single, SimpleNamespace(train_step=many))

        return [of(n, "solo" if n == 1 else "vmap") for n in self.sizes]


def make(monkeypatch, replicas=1, *, way="loop", broken=None, accuracy=lambda step, i: step / 16,
         **more):  # fmt: skip
    """A group of so many replicas, which keeps what happens to it."""
    fields = {"log_every": 2, "eval_every": 0.8, "steps": STEPS}  # an evaluation each 5 steps
    e = tiny(**{**fields, **more.pop("fields", {})})
    members = [One(i, dataclasses.replace(e, seed=i), {"seed": i} if replicas > 1 else {})
               for i in range(replicas)]  # fmt: skip
    for one in members:
        one.best = Best(e.task)
    said, happened = [], []
    program = SimpleNamespace(seen=[], bad=more.pop("bad", {}))
    group = Group(
        **{"experiment": e, "program": program, "replicas": members, "steps": STEPS},
        **{"way": Plain(way, ()), "dispatch": more.pop("dispatch", 1), "train": Rows(broken)},
        **{"eval": "held out", "say": said.append, **more},
    )
    zero = State(np.int32(group.step), np.bool_(True), np.float32(0))
    group.take(members, [zero] * replicas)
    group.said, group.happened = said, happened
    watch(monkeypatch, group, accuracy)
    return group


def watch(monkeypatch, group, accuracy):
    """Keep what the observers of a group are told and what it saves; its evaluations are given."""
    e, happened = group.experiment, group.happened

    def tell(kind, replica, record, **_):
        happened.append((kind, record["step"], replica.index))
        replica.told = [*getattr(replica, "told", []), record]
        if kind == "eval":
            replica.seen.append(record)

    group.tell = tell

    def collect(steps, source, experiment):
        assert (source, experiment) == ("held out", e)
        return [[(3, np.arange(count) if kind == "vmap" else np.int32(0))]
                for (kind, count), _ in steps]  # fmt: skip

    def merge(task, rows):
        ((count, i),) = rows
        assert (task, count, np.shape(i)) == (e.task, 3, ())
        place = len([1 for one in happened if one[:2] == ("eval", group.step)])
        return {"accuracy": accuracy(group.step, place), "which": int(i)}

    def begin(given, *, best=frozenset()):
        assert given is group
        happened.append(("save", group.step, sorted(best)))

    monkeypatch.setattr(loop.evaluation, "collect", collect)
    monkeypatch.setattr(loop.evaluation, "merge", merge)
    monkeypatch.setattr(loop.saving, "begin", begin)
    monkeypatch.setattr(loop.saving, "settle", lambda group, **more: happened.append("settle"))
    monkeypatch.setattr(loop.saving, "leave", lambda group: happened.append("leave"))


def run(group, stop=lambda: False):
    loop.run(group, stop)


def events(group, *kinds):
    return [one for one in group.happened if one[0] in kinds]


def numbers(replica, name="loss"):
    return {r["step"]: r[name] for r in replica.told if r["kind"] == "train"}


# of the steps since the record before: 1 and 2, 3 and 4, 5 (before the evaluation), 6, 7 and 8, …
MEANS = {2: 1.5, 4: 3.5, 5: 5.0, 6: 6.0, 8: 7.5, 10: 9.5, 12: 11.5}
