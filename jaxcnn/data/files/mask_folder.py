"""Images with masks: for each image a second image that holds a class number at each pixel."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.core.batch import IGNORED
from jaxcnn.data.example import Example
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.checks import image_files
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import image_size
from jaxcnn.data.files.label_images import colour_number, read_colour_mask, read_index_mask
from jaxcnn.data.files.mask_values import require_one_meaning, say_missing, scan_values
from jaxcnn.errors import ConfigError, DataError

Colour = tuple[int, int, int]
DRAWN_ON = ("", "shown", "stored")


@dataclass(frozen=True)
class MaskFolder(Annotated):
    """The images of folder `images` with the masks of folder `masks`: "image" uint8 [H, W,
    channels], "segmentation" int32 [H, W].

    An image and its mask have the same path below their folders but for the ending; masks of no
    image are not read, which is said. A mask is a palette or grey image (PNG keeps its numbers;
    JPEG does not and is refused) of its image's size, whose pixels are class numbers, 0 the
    background by convention; 255 means that no class is known there. Where the values of a split
    leave a doubt of that, such as 0 and 255 only, they are refused until a field says what they
    mean (DataError).

    names: of the classes, in the order of their numbers; other numbers are then faults.
    values: the pixel values that stand for the classes, such as (0, 255) for black and white masks;
        () where they are the numbers.
    colours: (red, green, blue) of each class, of masks in colours.
    ignored: the value (or colour) that means that no class is known; None for 255 where the pixels
        are class numbers and for none where `values` or `colours` are given.
    drawn_on: on what the masks of photographs that their EXIF tag turns were drawn: "shown", the
        upright picture, or "stored", the pixels as they lie in the file, so that the masks are
        turned too. "" for what the sizes say; where they fit both ways, that is refused.
    eval_images, eval_masks and test_images, test_masks: the folders of these splits; without eval,
    `eval_fraction` is held out.
    Broken labels, as `invalid` says: images without a mask or of another size are left out, pixels
    of other values are ignored (255).
    """

    ENTRIES = ("segmentation",)

    images: str
    masks: str
    names: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    eval_images: str = ""
    eval_masks: str = ""
    test_images: str = ""
    test_masks: str = ""
    colours: tuple[Colour, ...] = ()
    ignored: int | Colour | None = None
    drawn_on: str = ""

    def __post_init__(self):
        super().__post_init__()
        given = self.colours or self.values
        if self.values and self.colours:
            raise ConfigError("MaskFolder: values and colours are given; a class has one of both")
        if self.names and given and len(self.names) != len(given):
            raise ConfigError(
                f"MaskFolder: {len(self.names)} names and {len(given)} "
                f"{'colours' if self.colours else 'values'}; each class has one of both"
            )
        if len(set(given)) < len(given) or self.ignored in given:
            raise ConfigError(
                f"MaskFolder: {'colours' if self.colours else 'values'}={given}, ignored="
                f"{self.ignored}; each class has a value of its own"
            )
        kind, axes, top = ("colour", 3, 255) if self.colours else ("value", 1, 65535)
        for value in (*given, *(() if self.ignored is None else (self.ignored,))):
            if np.size(value) != axes or np.min(value) < 0 or np.max(value) > top:
                raise ConfigError(
                    f"MaskFolder: {value!r} is no {kind} of a pixel, {axes} numbers in [0, {top}]"
                )
        if self.drawn_on not in DRAWN_ON:
            raise ConfigError(
                f"MaskFolder: drawn_on is {self.drawn_on!r}; it must be one of {DRAWN_ON}"
            )

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`."""
        images, masks = {
            "train": (self.images, self.masks),
            "eval": (self.eval_images, self.eval_masks),
            "test": (self.test_images, self.test_masks),
        }[split]
        if not (images or masks):
            return None
        if not (images and masks):
            raise ConfigError(
                f"MaskFolder: {split} has images={images!r} and masks={masks!r}; name both folders"
            )
        found, out, turns = image_files(Path(masks).expanduser()), [], {}
        for stem, path in image_files(Path(images).expanduser()).items():
            mask = found.pop(stem, None)
            if mask is None:
                faults.add(f"{path}: there is no mask {stem} in {masks}", kind="no mask")
            elif (fit := fit_mask(path, mask, faults, drawn_on=self.drawn_on)) is not None:
                size, turns[mask] = fit
                read = functools.partial(self._label_map, mask, turns[mask])
                out.append(Example(image=path, size=size, name=str(path), segmentation=read))
        for stem in found:
            faults.note(f"{masks}: the mask {stem} has no image in {images}", kind="unused mask")
        self._judge(list(turns), split, masks)
        return self.names, out

    def _judge(self, masks: list[Path], split: str, folder: str) -> None:
        """Refuse values that have two meanings, over the whole split."""
        found = scan_values(masks, lambda path: self._pixels(path, None))
        where = f"MaskFolder {folder}, {split}"
        if not self._numbers and self.ignored is None:
            require_one_meaning(found, self.names, where=where)
        if self.names and split == "train":
            numbers = self._numbers or range(len(self.names))
            say_missing(found, numbers, self.names, where=where)

    @property
    def _numbers(self) -> tuple[int, ...]:
        """The numbers that stand for the classes; () where they are 0, 1, 2, ..."""
        return tuple(map(colour_number, self.colours)) or self.values

    def _pixels(self, mask: Path, turn: int | None) -> np.ndarray:
        read = read_colour_mask if self.colours else read_index_mask
        return read(mask, name=str(mask), turn=turn)

    def _label_map(self, mask: Path, turn: int, faults: Faults) -> np.ndarray:
        ignored = self.ignored
        return class_numbers(
            self._pixels(mask, turn),
            faults,
            name=str(mask),
            values=self._numbers,
            num_classes=len(self.names) or None,
            ignored=colour_number(ignored) if isinstance(ignored, tuple) else ignored,
            colours=bool(self.colours),
        )

    def _where(self) -> str:
        return f"MaskFolder {self.images}"


def fit_mask(
    image: Path, mask: Path, faults: Faults, *, drawn_on: str = ""
) -> tuple[tuple[int, int], int] | None:
    """The (height, width) of the upright image, and the EXIF orientation that the stored pixels of
    its mask have, from the headers: its own tag's, or that of its image where it was drawn on the
    stored pixels.

    None (and a fault) where the sizes do not fit, or fit both ways and `drawn_on` does not say
    which; see `MaskFolder`.
    """
    for path in (image, mask):
        if not path.exists():
            return faults.add(f"{path}: there is no such image file", kind="no such image")
    try:
        (size, turn), (mask_size, own) = image_size(image), image_size(mask)
    except DataError as error:
        return faults.add(str(error), kind="damaged image")
    upright, mask_upright = _upright(size, turn), _upright(mask_size, own)
    shown, stored = upright == mask_upright, size == mask_size
    if turn != own and shown and stored and not drawn_on:
        return faults.add(
            f"{mask}: its EXIF orientation is {own} and that of its image {image} is {turn} (1: "
            "upright), and their sizes fit both ways; say on what the masks were drawn: "
            "drawn_on='shown' (the upright picture) or drawn_on='stored' (the pixels as they lie "
            "in the file), or write the images upright, without the tag",
            kind="image or mask turned by its EXIF orientation",
        )
    if not (stored if drawn_on == "stored" else shown):
        hint = "; they fit as stored, without EXIF turns: drawn_on='stored'" if stored else ""
        return faults.add(
            f"{mask}: is {mask_upright} (height, width) and its image {image} is {upright}; they "
            f"must be of one size{hint}",
            kind="mask of another size",
        )
    return upright, turn if drawn_on == "stored" else own


def _upright(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return (size[1], size[0]) if turn >= 5 else size


def class_numbers(
    pixels: np.ndarray,
    faults: Faults,
    *,
    name: str,
    values: tuple[int, ...] = (),
    num_classes: int | None = None,
    ignored: int | None = None,
    colours: bool = False,
) -> np.ndarray:
    """The class numbers of the values of a mask, int32 [H, W]. Pixels of values that stand for no
    class are a fault, and ignored; those of the value `ignored` are ignored without one.

    `values` that stand for the classes 0, 1, ...; () where they are the numbers, with 255 ignored
    if `ignored` is None. `colours`: the values are those of `label_images.colour_number`.
    """
    if values:
        order = np.argsort(values)
        ordered = np.asarray(values)[order]
        place = np.minimum(np.searchsorted(ordered, pixels), len(values) - 1)
        known = ordered[place] == pixels
        out = np.where(known, order[place], IGNORED).astype(np.int32)
        allowed = f"the {'colours' if colours else 'values'} {_shown(values, colours)}"
    else:
        ignored = IGNORED if ignored is None else ignored
        known = (pixels >= 0) & ((pixels < num_classes) if num_classes else pixels < IGNORED)
        known &= pixels != ignored
        out = np.where(known, pixels, IGNORED).astype(np.int32)
        allowed = f"class numbers in [0, {num_classes or IGNORED})"
    strange = ~known if ignored is None else ~known & (pixels != ignored)
    if strange.any():
        found = np.unique(pixels[strange]).tolist()
        also = "" if ignored is None else f" or {_shown((ignored,), colours)}, which is ignored"
        faults.add(
            f"{name}: {int(strange.sum())} pixels hold {_shown(found[:8], colours)}; a mask holds "
            f"{allowed}{also} (else set names, values, colours or ignored)",
            kind="pixels of no class",
        )
    return out


def _shown(values: Any, colours: bool) -> list[Any]:
    """Values as a user wrote them."""
    return [(v >> 16, v >> 8 & 255, v & 255) if colours else v for v in values]


def existing_folder(path: Path, what: str) -> Path:
    """`path`, or DataError where there is no such folder."""
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; it must hold {what}")
    return path
