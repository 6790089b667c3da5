"""Images with masks: for each image a second image that holds a class number at each pixel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.core.batch import IGNORED
from jaxcnn.data.files.annotated_images import AnnotatedImages
from jaxcnn.data.files.checks import check_image_file, image_files
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import read_index_mask, resize_nearest
from jaxcnn.errors import ConfigError, DataError


@dataclass(frozen=True)
class MaskFolder(AnnotatedImages):
    """The images of folder `images` with the masks of folder `masks`: "image" uint8 [H, W,
    channels], "segmentation" int32 [H, W].

    An image and its mask have the same path below their folders but for the ending; masks of no
    image are not read. A mask is a palette or grey image (PNG keeps its numbers; JPEG does not) of
    its image's size, whose pixels are class numbers, 0 the background by convention; 255 means that
    no class is known there.

    names: of the classes, in the order of their numbers; other numbers are then faults.
    values: the pixel values that stand for the classes, such as (0, 255) for black and white masks;
        () where they are the numbers.
    eval_images, eval_masks and test_images, test_masks: the folders of these splits; without eval,
    `eval_fraction` is held out.
    Broken labels, as `invalid` says: images without a mask or of another size are left out, pixels
    of other values are ignored (255).
    """

    images: str
    masks: str
    names: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    eval_images: str = ""
    eval_masks: str = ""
    test_images: str = ""
    test_masks: str = ""

    def __post_init__(self):
        if self.names and self.values and len(self.names) != len(self.values):
            raise ConfigError(
                f"MaskFolder: {len(self.names)} names and {len(self.values)} values; each class "
                "has one of both"
            )
        if len(set(self.values)) < len(self.values):
            raise ConfigError(
                f"MaskFolder: values={self.values}; each class has a value of its own"
            )

    def read(self) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
        """The class names, and (image, mask) of each split."""
        folders = {
            "train": (self.images, self.masks),
            "eval": (self.eval_images, self.eval_masks),
            "test": (self.test_images, self.test_masks),
        }
        return self.names, {
            split: self._pairs(*pair, split) for split, pair in folders.items() if any(pair)
        }

    def _pairs(self, images: str, masks: str, split: str) -> list[tuple[Path, Path]]:
        if not (images and masks):
            raise ConfigError(
                f"MaskFolder: {split} has images={images!r} and masks={masks!r}; name both folders"
            )
        faults, out = Faults(f"MaskFolder {images}", self.invalid), []
        found = image_files(Path(masks).expanduser())
        for stem, path in image_files(Path(images).expanduser()).items():
            if stem not in found:
                faults.add(f"{path}: there is no mask {stem} in {masks}")
            elif mask_fits(path, found[stem], faults):
                out.append((path, found[stem]))
        faults.warn()
        return out

    def _where(self) -> str:
        return f"MaskFolder {self.images}"

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self.image_spec() | {"segmentation": jax.ShapeDtypeStruct(self.image_size, np.int32)}

    def decode(self, item: tuple[Path, Path], faults: Faults) -> dict[str, np.ndarray]:
        """One image and its mask."""
        image, mask = item
        segmentation = read_segmentation(
            mask, self.image_size, faults, values=self.values, num_classes=len(self.names) or None
        )
        return {"image": self.read_image(image), "segmentation": segmentation}


def mask_fits(image: Path, mask: Path, faults: Faults) -> bool:
    """Whether an image and its mask can be read and are of one size, from their headers."""
    size, mask_size = check_image_file(image, faults), check_image_file(mask, faults)
    if size is None or mask_size is None:
        return False
    if size != mask_size:
        faults.add(
            f"{mask}: is {mask_size} (height, width) and its image {image} is {size}; they must "
            "be of one size"
        )
    return size == mask_size


def read_segmentation(
    path: Path,
    size: tuple[int, int],
    faults: Faults,
    *,
    values: tuple[int, ...] = (),
    num_classes: int | None = None,
) -> np.ndarray:
    """The label map of a mask file, int32 [*size]. Pixels of values that stand for no class are a
    fault, and ignored.
    """
    pixels = read_index_mask(path, name=str(path))
    if values:
        out = np.full(pixels.shape, IGNORED, np.int32)
        for number, value in enumerate(values):
            out[pixels == value] = number
        strange = (out == IGNORED) & (pixels != IGNORED)
        allowed = f"the values {values} or {IGNORED}"
    else:
        strange = (pixels < 0) | ((pixels >= num_classes) if num_classes else np.False_)
        strange &= pixels != IGNORED
        out, allowed = (
            np.where(strange, IGNORED, pixels),
            f"class numbers in [0, {num_classes}) or {IGNORED}",
        )
    if strange.any():
        found = np.unique(pixels[strange]).tolist()
        faults.add(
            f"{path}: {int(strange.sum())} pixels hold {found[:8]}; a mask holds {allowed} (else "
            "set names or values)"
        )
    return resize_nearest(out.astype(np.int32), size)


def existing_folder(path: Path, what: str) -> Path:
    """`path`, or DataError where there is no such folder."""
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; it must hold {what}")
    return path
