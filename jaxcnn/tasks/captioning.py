"""Image captioning: the next word by cross-entropy, whole captions by BLEU, CIDEr-D, ROUGE-L and
exact match.

Outputs: {"logits": [B, R, L - 1, V] of the word after each given one; in evaluation also "tokens":
    [B, T] int32, the model's own caption}.
Batch: "captions" [B, R, L] int32: R references of each image, each start, words, end, padding (see
`jaxcnn.ops.decoding`); a row of padding where an image has fewer. The model gets them as its second
input but decodes "tokens" from the image alone, so that an image without
captions can be described: where the batch has none, give zeros.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics import text_overlap as metrics
from jaxcnn.ops.decoding import END, PAD, START, to_words
from jaxcnn.tasks.task import BaseTask, Batch, mean_softmax


@dataclasses.dataclass(frozen=True)
class Captioning(BaseTask):
    """Sentences over a vocabulary of `vocabulary_size` words, the special ones included.

    `label_smoothing` in [0, 1) moves that share of the target evenly to all words (Szegedy et al.,
    "Rethinking the Inception architecture for computer vision", 2016, section 7).
    """

    vocabulary_size: int
    label_smoothing: float = 0.0
    inputs: tuple[str, ...] = ("image", "captions")
    training_inputs = ("captions",)
    metric: str = "cider"
    larger_is_better: bool = True

    blind_answer = "the most frequent caption, always"

    def __post_init__(self):
        if self.vocabulary_size <= END:
            raise ConfigError(
                f"Captioning: vocabulary_size is {self.vocabulary_size}; it counts padding, start "
                "and end too"
            )
        if isinstance(self.label_smoothing, int | float) and not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"Captioning: label_smoothing is {self.label_smoothing}; it is a share in [0, 1)"
            )

    def loss(self, outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """Cross-entropy [B] float32 in nats, the mean over all words of all references, ends
        included; 0 without a reference.
        """
        target = batch["captions"][..., 1:]  # [B, R, L - 1]
        log_probabilities = jax.nn.log_softmax(outputs["logits"].astype(jnp.float32))
        likelihood = jnp.take_along_axis(log_probabilities, target[..., None], axis=-1)[..., 0]
        smoothing = jnp.asarray(self.label_smoothing, jnp.float32)
        each = -((1.0 - smoothing) * likelihood + smoothing * jnp.mean(log_probabilities, axis=-1))
        is_word = target != PAD
        return jnp.where(is_word, each, 0.0).sum((1, 2)) / jnp.maximum(
            is_word.sum((1, 2)).astype(jnp.float32), 1.0
        )

    def records(self, outputs: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """The decoded tokens [B, T] and the references [B, R, L], both int32."""
        return {"tokens": outputs["tokens"], "references": batch["captions"]}

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """exact (share of captions that equal a reference), bleu1 … bleu4 (corpus), cider (CIDEr-D,
        in [0, 10]), rouge_l; skipped, the examples without a reference, which the metrics leave out
        (they are None if that leaves nothing); blind_<metric>, what the most frequent of the
        evaluated examples' captions scores.

        Words are compared by number, so two words that the vocabulary lacks are equal.
        """
        references = [
            [words for row in rows if (words := to_words(row))]
            for rows in np.asarray(records["references"])
        ]
        pairs = [
            (to_words(row), known)
            for row, known in zip(np.asarray(records["tokens"]), references, strict=True)
            if known
        ]
        skipped = {"skipped": len(references) - len(pairs)}
        if not pairs:
            return dict.fromkeys(SCORES) | skipped
        said, known = zip(*pairs, strict=True)
        found = score_captions(said, known) | skipped
        if self.metric in SCORES:
            same = [majority_caption(np.asarray(records["references"]))] * len(pairs)
            found[f"blind_{self.metric}"] = _score(self.metric, same, known)
        return found

    def predict(self, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """tokens [B, T] int32: words, the end, padding."""
        return {"tokens": outputs["tokens"]}

    def describe(self, row: dict[str, np.ndarray], *, names: tuple[str, ...]) -> dict[str, Any]:
        """{"text": the sentence}, with the vocabulary as `names`."""
        return {"text": " ".join(to_words(row["tokens"], names=names))}

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for captions that are not [B, R, L] integers in [0, vocabulary_size), or not
        start, words, end, padding; for an image without any caption; and for unscaled or non-finite
        images.
        """
        captions = np.asarray(batch["captions"])
        if (
            captions.ndim != 3
            or not np.issubdtype(captions.dtype, np.integer)
            or captions.shape[-1] < 2
        ):
            raise DataError(
                f"captions have shape {captions.shape} and dtype {captions.dtype}; expected "
                "integers [B, R, L], R captions each"
            )
        exists = np.any(captions != PAD, axis=-1, keepdims=True)  # [B, R, 1]
        is_first, is_end = np.arange(captions.shape[-1])[None, None] == 0, captions == END
        is_after = np.cumsum(is_end, axis=-1) - is_end > 0  # behind the first end
        outside = (captions < 0) | (captions >= self.vocabulary_size)
        _refuse(
            outside,
            captions,
            f"tokens lie in [0, {self.vocabulary_size}): correct vocabulary_size of the task and "
            "the model",
        )
        _refuse(
            exists & ((captions == START) != is_first),
            captions,
            f"a caption has one start ({START}), as its first token",
        )
        _refuse(
            exists & ~np.any(is_end, axis=-1, keepdims=True) & is_first,
            captions,
            f"it lacks an end ({END}): cut its words",
        )
        _refuse(
            exists & ((captions == PAD) != is_after),
            captions,
            f"padding ({PAD}), and nothing else, follows the end ({END})",
        )
        empty = ~np.any(exists, axis=(1, 2))
        if empty.any():
            raise DataError(
                f"captions[{int(np.argmax(empty))}] are all padding; give at least one caption, "
                "or drop the image"
            )
        super().check({name: x for name, x in batch.items() if name != "captions"})

    def ensemble(self, outputs: list) -> dict[str, jax.Array]:
        """The logits of the mean of the models' probabilities, and the caption on which most models
        agree (of equals the first's).
        """
        joined = {}
        if "logits" in outputs[0]:
            joined["logits"] = mean_softmax([o["logits"] for o in outputs])
        tokens = jnp.stack([o["tokens"] for o in outputs])  # [M, B, T]
        votes = (tokens[:, None] == tokens[None]).all(-1).sum(1)  # [M, B]
        return {
            **joined,
            "tokens": jnp.take_along_axis(tokens, votes.argmax(0)[None, :, None], axis=0)[0],
        }


SCORES = ("exact", "bleu1", "bleu2", "bleu3", "bleu4", "cider", "rouge_l")


def score_captions(predictions: Any, references: Any) -> dict[str, float]:
    """SCORES of sentences (sequences of words) against one or more references each."""
    return {
        "exact": metrics.exact_match(predictions, references),
        **metrics.bleu(predictions, references),
        "cider": metrics.cider_d(predictions, references),
        "rouge_l": metrics.rouge_l(predictions, references),
    }


def _score(name: str, predictions: Any, references: Any) -> float:
    """One of SCORES alone: CIDEr takes its time."""
    if name.startswith("bleu"):
        return metrics.bleu(predictions, references)[name]
    one = {"exact": metrics.exact_match, "cider": metrics.cider_d, "rouge_l": metrics.rouge_l}
    return one[name](predictions, references)


def majority_caption(captions: np.ndarray) -> tuple[str, ...]:
    """The blind baseline: the most frequent sentence of captions [N, R, L], as words to score
    against others.
    """
    rows, counts = np.unique(captions.reshape(-1, captions.shape[-1]), axis=0, return_counts=True)
    counts[~rows.any(1)] = 0
    return to_words(rows[counts.argmax()])


def _refuse(wrong: np.ndarray, captions: np.ndarray, rule: str) -> None:
    if wrong.any():
        place = [int(i) for i in np.unravel_index(np.argmax(wrong), wrong.shape)]
        raise DataError(
            f"captions{place} is {captions[tuple(place)]}; {rule}. So it is in "
            f"{int(np.sum(np.any(wrong, axis=-1)))} captions"
        )
