"""Images with masks: for each image a second image that holds a class number at each pixel."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxcnn.data.example import Example
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.checks import image_files
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import image_size
from jaxcnn.data.files.mask_values import Colour, Meaning, say_missing, scan_values
from jaxcnn.errors import ConfigError, DataError

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
        self._meaning.check("MaskFolder", self.names)
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
        found = scan_values(masks, lambda path: self._meaning.read(path, name=str(path)))
        where = f"MaskFolder {folder}, {split}"
        self._meaning.judge(found, self.names, where=where)
        if self.names and split == "train":
            numbers = self._meaning.numbers or range(len(self.names))
            say_missing(found, numbers, self.names, where=where)

    @property
    def _meaning(self) -> Meaning:
        return Meaning(self.values, self.colours, self.ignored)

    def _label_map(self, mask: Path, turn: int, faults: Faults) -> np.ndarray:
        pixels = self._meaning.read(mask, name=str(mask), turn=turn)
        num_classes = len(self.names) or None
        return self._meaning.class_numbers(pixels, faults, name=str(mask), num_classes=num_classes)

    def _where(self) -> str:
        return f"MaskFolder {self.images}"


def fit_mask(
    image: Path, mask: Path, faults: Faults, *, drawn_on: str | None = None
) -> tuple[tuple[int, int], int] | None:
    """The (height, width) of the upright image, and the EXIF orientation that the stored pixels of
    its mask have, from the headers: its own tag's, or that of its image where it was drawn on the
    stored pixels.

    None (and a fault) where the sizes do not fit, or fit both ways and `drawn_on` does not say
    which; see `MaskFolder`. `drawn_on`: None where the reader's user cannot say it.
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
    remedy = "write the images upright, without the tag"
    if turn != own and shown and stored and not drawn_on:
        say = "say on what the masks were drawn: drawn_on='shown' (the upright picture) or "
        say += "drawn_on='stored' (the pixels as they lie in the file), or "
        return faults.add(
            f"{mask}: its EXIF orientation is {own} and that of its image {image} is {turn} (1: "
            "upright), and their sizes fit both ways, so that nobody knows on what it was drawn; "
            + ("" if drawn_on is None else say)
            + remedy,
            kind="image or mask turned by its EXIF orientation",
        )
    if not (stored if drawn_on == "stored" else shown):
        hint = "; they fit as stored, without EXIF turns: " if stored else ""
        hint += (remedy if drawn_on is None else "drawn_on='stored'") if stored else ""
        return faults.add(
            f"{mask}: is {mask_upright} (height, width) and its image {image} is {upright}; they "
            f"must be of one size{hint}",
            kind="mask of another size",
        )
    return upright, turn if drawn_on == "stored" else own


def _upright(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return (size[1], size[0]) if turn >= 5 else size


def existing_folder(path: Path, what: str) -> Path:
    """`path`, or DataError where there is no such folder."""
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; it must hold {what}")
    return path
