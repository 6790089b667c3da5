"""Text recognition (OCR): connectionist temporal classification over the columns of a line, greedy
or beam decoding, CER and WER.

Outputs: logits [B, T, K + 1] of each frame's label, 0 the blank, 1 + i the character `alphabet[i]`.
Batch: "text" [B, L] int32 in the same numbers, padded with 0. Graves, Fernández, Gomez,
Schmidhuber, "Connectionist temporal classification" (2006).
"""

import dataclasses
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics.edit_distance import character_error_rate, word_error_rate
from jaxcnn.ops import alphabet as characters
from jaxcnn.ops import ctc
from jaxcnn.tasks.task import BaseTask, Batch, count, mean_softmax


@dataclasses.dataclass(frozen=True)
class TextRecognition(BaseTask):
    """The characters of a line of text, from left to right.

    `alphabet` holds each character once. A frame is `stride` columns of the image. A text of n
    characters, r of them the same as the one before, needs n + r frames (a blank must part equal
    neighbours); `too_long` says what becomes of one that has fewer: "error" refuses the data,
    "skip" leaves it out of the loss, counts it as `skipped`, and as misread. `beam` is the width of
    the prefix beam search with which `summarize` and `describe` decode, on the host; 1 decodes
    greedily, by the likeliest label of each frame.
    """

    alphabet: str
    stride: int = 4
    too_long: str = "error"
    beam: int = 1
    inputs: tuple[str, ...] = ("image",)
    metric: str = "exact"
    larger_is_better: bool = True

    blind_answer = "the most frequent line, or none, always"

    def __post_init__(self):
        characters.require_alphabet(self.alphabet)
        if self.too_long not in ("error", "skip"):
            raise ConfigError(
                f"TextRecognition: too_long is {self.too_long!r}; it must be 'error' or 'skip'"
            )
        if self.beam < 1 or self.stride < 1:
            raise ConfigError(
                f"TextRecognition: beam={self.beam}, stride={self.stride}; both are at least 1 "
                "(beam 1: greedy decoding)"
            )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Minus the log-probability [B] float32 in nats that CTC gives the text; 0 for one that is
        skipped.
        """
        logits, text = outputs.astype(jnp.float32), batch["text"].astype(jnp.int32)
        self._require_classes(logits, batch)
        paddings = jnp.zeros(logits.shape[:2], jnp.float32)
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            loss = optax.ctc_loss(
                logits, paddings, text, (text == 0).astype(jnp.float32), blank_id=0
            )
        return (
            jnp.where(self._is_skipped(logits, text), 0.0, loss)
            if self.too_long == "skip"
            else loss
        )

    def counts(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Number of lines that are too long (int32)."""
        return {"skipped": count((batch["mask"] > 0) & self._is_skipped(outputs, batch["text"]))}

    def records(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """text [B, L] and what was read, read [B, T], both padded with 0; for a beam
        log_probabilities [B, T, K + 1] in its place.
        """
        predicted = self.predict(outputs)
        read = (
            {"read": predicted["text"]}
            if self.beam == 1
            else {"log_probabilities": predicted["log_probabilities"]}
        )
        return {"text": batch["text"].astype(jnp.int32)} | read

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """exact: share of lines without an error; cer, wer: edits over characters and over words
        (NaN without any); skipped; blind_<metric>, what the most frequent line of those that are
        evaluated scores, by cer and wer no line at all if that is better.
        """
        truths = characters.decode(np.asarray(records["text"]), alphabet=self.alphabet)
        if self.beam == 1:
            lines = characters.decode(np.asarray(records["read"]), alphabet=self.alphabet)
        else:
            lines = [self._search(row) for row in np.asarray(records["log_probabilities"])]
        found = {name: score(lines, truths) for name, score in SCORES.items()}
        blind = {}
        if truths and self.metric in SCORES:
            frequent, score = Counter(truths).most_common(1)[0][0], SCORES[self.metric]
            same = [score([line] * len(truths), truths) for line in {frequent, ""}]
            blind[f"blind_{self.metric}"] = max(same) if self.metric == "exact" else min(same)
        return {**found, "skipped": int(sums["skipped"]), **blind}

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """text [B, T] int32, decoded greedily and padded with 0; probability [B] of the likeliest
        path; for a beam also log_probabilities
        [B, T, K + 1] of the frames."""
        log_probabilities = jax.nn.log_softmax(outputs.astype(jnp.float32))
        labels, _ = ctc.greedy(log_probabilities, blank=0)
        predicted = {
            "text": jnp.maximum(labels, 0),
            "probability": jnp.exp(log_probabilities.max(-1).sum(-1)),
        }
        return predicted if self.beam == 1 else predicted | {"log_probabilities": log_probabilities}

    def describe(
        self, row: dict[str, np.ndarray], *, names: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """{"text", "probability"} of one row of `predict`. With a beam the probability is that of
        the text, else of its likeliest path.
        """
        if self.beam > 1:
            (labels, score), *_ = ctc.beam_search(
                row["log_probabilities"], width=self.beam, blank=0
            )
            return {
                "text": characters.decode([labels], alphabet=self.alphabet)[0],
                "probability": float(np.exp(score)),
            }
        return {
            "text": characters.decode([row["text"]], alphabet=self.alphabet)[0],
            "probability": float(row["probability"]),
        }

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for numbers that are no character of the alphabet, for padding within a text,
        for a text that needs more frames than the image has (unless `too_long` is "skip"), and for
        unscaled or non-finite images.
        """
        text = np.asarray(batch["text"])
        if not np.issubdtype(text.dtype, np.integer) or text.ndim != 2:
            raise DataError(
                f"text has dtype {text.dtype} and shape {text.shape}; expected integers [B, L], 1 "
                "+ the place in the alphabet"
            )
        unknown = (text < 0) | (text > len(self.alphabet))
        if unknown.any():
            row, place = (int(i) for i in np.argwhere(unknown)[0])
            raise DataError(
                f"text[{row}, {place}] is {text[row, place]}, an unknown character; numbers lie "
                f"in [0, {len(self.alphabet)}], 0 being "
                f"padding and 1 + i character i of the alphabet {self.alphabet!r}, and "
                f"{int(unknown.sum())} do not. Correct the alphabet "
                "or the data"
            )
        broken = (text[:, 1:] != 0) & (text[:, :-1] == 0)
        if broken.any():
            row = int(np.argwhere(broken)[0][0])
            raise DataError(
                f"text[{row}] is {text[row].tolist()}; 0 is padding and may only follow the text. "
                "Give a space a number of its own"
            )
        super().check({name: x for name, x in batch.items() if name != "text"})
        if "image" in batch and self.too_long == "error":
            self._check_length(text, frames=np.shape(batch["image"])[2] // self.stride)

    def ensemble(self, outputs: list) -> jax.Array:
        """Logits [B, T, K + 1] whose softmax is the mean of the models' probabilities, frame by
        frame.
        """
        return mean_softmax(outputs)

    def _search(self, log_probabilities: np.ndarray) -> str:
        (labels, _), *_ = ctc.beam_search(log_probabilities, width=self.beam, blank=0)
        return characters.decode([labels], alphabet=self.alphabet)[0]

    def _is_skipped(self, logits: jax.Array, text: jax.Array) -> jax.Array:
        """Which texts need more frames than there are. -> [B] bool"""
        return frames_needed(text) > logits.shape[1]

    def _require_classes(self, logits: jax.Array, batch: Batch) -> None:
        if logits.shape[2] != len(self.alphabet) + 1:
            raise ConfigError(
                f"the model gives {logits.shape[2]} labels a frame; with the {len(self.alphabet)} "
                f"characters of {self.alphabet!r} and the "
                f"blank it must give {len(self.alphabet) + 1}: set its number of characters to "
                f"{len(self.alphabet)}"
            )
        width = batch["image"].shape[2] if "image" in batch else self.stride * logits.shape[1]
        if width // self.stride != logits.shape[1]:
            raise ConfigError(
                f"the model gives {logits.shape[1]} frames of an image {width} wide; with "
                f"stride={self.stride} the task expects "
                f"{width // self.stride}. Set TextRecognition(stride=…) to the model's"
            )

    def _check_length(self, text: np.ndarray, *, frames: int) -> None:
        needed = np.asarray(frames_needed(text))
        if (needed > frames).any():
            row = int(np.argmax(needed > frames))
            line = characters.decode([text[row]], alphabet=self.alphabet)[0]
            raise DataError(
                f"text[{row}] {line!r} needs {needed[row]} frames, one a character and a blank "
                "between equal neighbours, but the image has "
                f"{frames} (its width over stride={self.stride}), and "
                f"{int((needed > frames).sum())} of {len(text)} are too long. "
                "Use wider images, or too_long='skip'"
            )


def _exact(lines: list[str], truths: list[str]) -> float:
    return sum(a == b for a, b in zip(lines, truths, strict=True)) / max(len(truths), 1)


def _cer(lines: list[str], truths: list[str]) -> float:
    return character_error_rate(lines, truths) if any(truths) else float("nan")


def _wer(lines: list[str], truths: list[str]) -> float:
    words = any(line.split() for line in truths)
    return word_error_rate(lines, truths) if words else float("nan")


SCORES = {"exact": _exact, "cer": _cer, "wer": _wer}


def frames_needed(text: Any) -> Any:
    """Frames that each padded text needs at least, [B, L] -> [B]; NumPy or JAX. (As
    `ctc.frames_needed`, for whole batches.)
    """
    return (text > 0).sum(-1) + ((text[:, 1:] == text[:, :-1]) & (text[:, 1:] > 0)).sum(-1)
