"""What can be asked of a model about its pictures: a method, a class, a layer, channels."""

import dataclasses
import re

from jaxcnn.core.experiment import Experiment
from jaxcnn.errors import ConfigError, did_you_mean

OF_CLASSES = ("gradcam", "layercam", "gradient", "integrated", "smoothgrad", "occlusion")  # maps
OF_LAYERS = ("gradcam", "layercam", "features", "patches", "dream")
OF_CHANNELS = ("features", "patches", "dream")
METHODS = (*OF_CLASSES, "filters", "features", "patches", "dream")


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked: a method of METHODS; a class by name or number (None: the predicted one); a
    layer by name (None: the last one with maps); channels of it.
    """

    method: str = "gradcam"
    target: str | int | None = None
    layer: str | None = None
    channels: tuple[int, ...] = ()

    def __post_init__(self):
        if self.method not in METHODS:
            raise ConfigError(
                f"method {self.method!r}: must be one of "
                f"{', '.join(METHODS)}{did_you_mean(self.method, METHODS)}"
            )
        if self.layer is not None and self.method not in OF_LAYERS:
            raise ConfigError(
                f"--layer {self.layer}: {self.method} is not of a layer; leave it out"
            )
        if self.channels and self.method not in OF_CHANNELS:
            raise ConfigError(
                f"--channel: {self.method} is of no single channels; take features, patches or "
                "dream, or leave it out"
            )
        if self.target is not None and self.method not in (*OF_CLASSES, "dream"):
            raise ConfigError(
                f"--target {self.target}: {self.method} is of layers, not of a class; leave it out"
            )
        if self.method == "dream" and len(self.channels) > 1:
            raise ConfigError(f"--channel: a dream is of one channel, not of {len(self.channels)}")
        of_layer = self.layer is not None or bool(self.channels)
        if self.method == "dream" and self.target is not None and of_layer:
            raise ConfigError("a dream is of a --target or of a --layer, not of both")

    @property
    def of_class(self) -> bool:
        """Whether it is about the score of a class; else about a layer, or the first filters."""
        return self.method in OF_CLASSES or (self.method == "dream" and self.target is not None)

    @property
    def of_layer(self) -> bool:
        """Whether it is about a layer that can be chosen."""
        return self.method in OF_LAYERS and not (self.method == "dream" and self.of_class)


def find_target(target: str | int, names: tuple[str, ...]) -> int:
    """The number of a class by its name, or by its number where no class has that name.

    Errors: ConfigError for one that does not exist.
    """
    if target in names:
        return names.index(str(target))
    text = str(target)
    if re.fullmatch("-?[0-9]{1,18}", text):
        if 0 <= int(text) < len(names):
            return int(text)
        raise ConfigError(f"target {target}: the classes are numbered 0 to {len(names) - 1}")
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    raise ConfigError(
        f"target {text[:80]!r}: no class has this name; there are {shown}"
        f"{did_you_mean(text, names)}"
    )


def names_of(e: Experiment, count: int) -> tuple[str, ...]:
    """Names of the scores that can be explained; their numbers for those without a name."""
    names = e.task.explained_names(names=tuple(e.data.label_names))
    return tuple(names[k] if k < len(names) else str(k) for k in range(count))
