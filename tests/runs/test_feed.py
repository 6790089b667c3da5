"""The order of a run's batches, whatever is gathered at once, and what is gathered ahead."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest

from jaxcnn.data.dataset import draws_of_steps, indices_of_steps
from jaxcnn.runs import feed
from jaxcnn.runs.feed import batches, pieces, steps_per_dispatch

B, SIZE = 3, 20


class Rows:
    """Rows that are their own numbers; how it was asked for them."""

    arrays = None

    def __init__(self, *, streaming=False, drawn=False, bytes_of_batch=0):
        self.streaming, self.drawn, self.bytes = streaming, drawn, bytes_of_batch
        self.asked = []

    def __len__(self):
        return SIZE

    def take(self, indices, *, draws=None):
        self.asked.append(indices.shape)
        batch = {"x": np.asarray(indices, np.int32)}
        if self.drawn:
            batch["draws"] = draws
        if self.bytes:
            leading = indices.shape[:-1]
            batch["ballast"] = np.broadcast_to(np.uint8(0), (*leading, self.bytes))
        return batch


def test_one_update_a_dispatch_on_a_cpu_unless_the_experiment_says_more():
    for streaming in (False, True):
        rows = Rows(streaming=streaming)
        assert steps_per_dispatch(SimpleNamespace(steps_per_dispatch=None), rows) == 1
        assert steps_per_dispatch(SimpleNamespace(steps_per_dispatch=5), rows) == 5


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_whole_between_multiples_of_the_intervals_and_single_before_them(seed):
    """Between two cuts (starts, ends, multiples) as many whole ones as fit; the rest by steps."""
    draw = random.Random(seed)
    start, size = draw.randrange(20), draw.randrange(1, 6)
    stop = start + draw.randrange(30)
    intervals = tuple(draw.randrange(1, 12) for _ in range(draw.randrange(3)))
    cuts = [start, *(s for s in range(start + 1, stop) if any(s % i == 0 for i in intervals)), stop]
    wanted = []
    for low, high in itertools.pairwise(cuts):
        whole = low + (high - low) // size * size
        wanted += [(s, s + size) for s in range(low, whole, size)]
        wanted += [(s, s + 1) for s in range(whole, high)]
    found = list(pieces(start, stop, size=size, intervals=intervals))
    assert found == wanted
    for i, (_, end) in enumerate(found):  # resumed there, it goes on with the same ones
        assert list(pieces(end, stop, size=size, intervals=intervals)) == found[i + 1 :]


def wanted(piece, seed):
    """The rows of a piece as its steps have them one by one."""

    def of(one):
        steps = [indices_of_steps(one, s, s + 1, size=SIZE, batch_size=B)[0] for s in range(*piece)]
        return np.stack(steps)

    rows = of(seed) if isinstance(seed, int) else np.stack([of(one) for one in seed], axis=1)
    return rows if piece[1] - piece[0] > 1 else rows[0]


@pytest.mark.parametrize("seed", [5, (5, 6), (7,)], ids=str)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_batches_are_those_of_their_steps_however_many_are_gathered(
    monkeypatch, seed, streaming, most
):
    monkeypatch.setattr(feed, "MOST_PIECES_AT_ONCE", most)
    lengths = [1, 1, 1, 1, 1, 2, 2, 2, 2, 1, 2, 1, 1, 1]
    ends = list(itertools.accumulate(lengths))
    steps = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    found = list(batches(Rows(streaming=streaming), steps, seed=seed, batch_size=B))
    assert [piece for piece, _ in found] == steps
    for piece, batch in found:
        np.testing.assert_array_equal(batch["x"], wanted(piece, seed))


def test_what_is_drawn_is_drawn_by_the_step(monkeypatch):
    monkeypatch.setattr(feed, "_apart", lambda batch: [
        {n: x[i] for n, x in batch.items()} for i in range(len(batch["x"]))])  # fmt: skip
    for streaming in (False, True):
        source = Rows(drawn=True, streaming=streaming)
        found = list(batches(source, [(i, i + 1) for i in range(70)], seed=5, batch_size=B))
        for (first, end), batch in found:
            drawn = draws_of_steps(5, first, end, batch_size=B)[0]
            np.testing.assert_array_equal(batch["draws"], drawn)


@pytest.mark.parametrize(
    "bytes_of_batch, most", [(0, 64), (4 << 20, 2), (3 << 20, 2), (5 << 20, 1), (9 << 20, 1)]
)
def test_small_batches_are_gathered_many_at_a_time_up_to_eight_mib(
    monkeypatch, bytes_of_batch, most
):
    monkeypatch.setattr(feed, "_apart", lambda batch: [{"x": x} for x in batch["x"]])
    source = Rows(bytes_of_batch=bytes_of_batch and bytes_of_batch - 4 * B)
    settled = []
    steps = [(i, i + 1) for i in range(1 + 2 * most + 1)]
    list(
        batches(
            source, steps, seed=5, batch_size=B, settle=lambda: settled.append(len(source.asked))
        )
    )
    many, alone = ((most, B) if most > 1 else (B,)), (B,)
    assert source.asked == [alone, many, many, alone]
    assert settled == ([1, 2] if most > 1 else [])  # before each gathering, not before a single one


def test_a_stream_is_asked_two_pieces_ahead_one_after_the_other():
    source, given = Rows(streaming=True), []

    def steps():
        for i in range(6):
            given.append(i)
            yield i, i + 1

    feeding = batches(source, steps(), seed=5, batch_size=B)
    for done in range(6):
        (first, _), _ = next(feeding)
        assert first == done
        assert len(given) == min(done + 3, 6)
    assert list(feeding) == []
    assert source.asked == [(B,)] * 6


def test_pieces_of_one_length_are_grouped_and_what_is_left_goes_alone():
    steps = [(0, 1), (1, 2), (2, 3), (3, 5), (5, 7), (7, 8), (8, 9), (9, 10), (10, 11), (11, 12)]
    assert list(feed._alike(steps, 2)) == [
        *([(0, 1), (1, 2)], [(2, 3)], [(3, 5), (5, 7)], [(7, 8), (8, 9)], [(9, 10), (10, 11)]),
        [(11, 12)],
    ]
    assert list(feed._alike(steps[:4], 1)) == [[step] for step in steps[:4]]
    assert list(feed._alike(steps[5:8], 4)) == [[step] for step in steps[5:8]]
