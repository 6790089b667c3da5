"""Data sets in the form of Pascal VOC: XML files of boxes, and PNG masks.

Source of the form: Everingham et al., "The Pascal visual object classes (VOC) challenge", 2010, and
the development kit's documentation.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from jaxcnn.data.example import Example, Numbered, Objects
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.checks import Row, check_image_file, check_objects, image_files
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.mask_folder import existing_folder, fit_mask
from jaxcnn.data.files.mask_values import Meaning, scan_values
from jaxcnn.data.files.names import nfc, require_distinct
from jaxcnn.data.files.parsing import inside
from jaxcnn.data.files.voc_file import CORNERS, VocFile, listed_stems
from jaxcnn.errors import ConfigError, DataError, did_you_mean

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
MASK_FOLDERS = {"segmentation": "SegmentationClass", "instance_masks": "SegmentationObject"}
# the form's own; masks of another are for MaskFolder, which reads the same folders
MEANING = Meaning(fields="MaskFolder's ")


@dataclass(frozen=True)
class Voc(Annotated):
    """A folder in the form of VOC: JPEGImages/, Annotations/, ImageSets/Main/NAME.txt and, for
    masks, SegmentationClass/ and SegmentationObject/. Without Annotations or JPEGImages, XML files
    or images lie in `path` itself.

    `train`, `eval` and `test` name files of ImageSets/Main (of ImageSets/Segmentation, if `entries`
    hold masks), a line for each image: its name, with or without a folder and an ending, and
    perhaps -1, 0 or 1 after it, as lists of single classes have it. Where there is no such folder,
    all annotated images are for training, less the `eval_fraction` held out.

    `entries` (shapes and dtypes: `jaxcnn.core.batch.ENTRIES`): "boxes"; "instance_masks", rows in
    the order of the boxes, which come with them; "segmentation": 0 background, 1 + label, 255
    unknown.

    names: of the classes, label 0 first; () for those that occur in training, sorted.
    difficult: whether objects so marked are ordinary ones; otherwise they lie in rows after the
        objects, "boxes_ignored" 1 and boxes_mask 0.
    first_pixel: 1 where corners are pixel numbers from 1, both ends in the box, as in VOC; 0 where
        they are distances from the upper left.
    Broken labels, as `invalid` says: missing images, other sizes than the XML says (0 and -1 are
    unknown sizes), unknown classes, boxes that are empty or lie outside, masks of another size or
    without a pixel of an object. Class masks that can be meant in another way, such as of 0 and 255
    only, are refused; MaskFolder reads them. Errors: DataError.
    """

    ENTRIES = ("boxes", "instance_masks", "segmentation")

    path: str
    train: str = "train"
    eval: str = "val"
    test: str = ""
    entries: tuple[str, ...] = field(default=("boxes",), kw_only=True)
    names: tuple[str, ...] = VOC_CLASSES
    difficult: bool = False
    first_pixel: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.first_pixel not in (0, 1):
            raise ConfigError(
                f"Voc: first_pixel is {self.first_pixel}; corners are counted from 0 or from 1"
            )

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`."""
        root = Path(self.path).expanduser()
        existing_folder(root, "JPEGImages, Annotations and ImageSets")
        images = {
            nfc(stem): file for stem, file in image_files(_folder(root, "JPEGImages")).items()
        }
        stems = self._stems(root, split, set(images), faults)
        if stems is None:
            return None
        names = self.names or names
        if not names and self.needs_objects:
            files = (self._file(root, stem) for stem in stems)
            names = tuple(sorted({name for file in files for name in file.class_names()}))
            require_distinct(names, where=f"Voc {root}")
        if split == "train" and "segmentation" in self.wanted:
            self._judge(root / MASK_FOLDERS["segmentation"])
        found = (
            self._example(root, self._file(root, stem), images, names, faults) for stem in stems
        )
        return names, [example for example in found if example is not None]

    def _judge(self, folder: Path) -> None:
        """Refuse masks with two meanings, over the folder of all splits: a small one may well hold
        no object."""
        found = scan_values(sorted(folder.glob("*.png")), lambda p: MEANING.read(p, name=str(p)))
        # no names: 255 is in the form, and never one of them
        MEANING.judge(found, (), where=f"Voc {folder}")

    def _stems(self, root: Path, split: str, images: set[str], faults: Faults) -> list[str] | None:
        """The names of a split's images."""
        kinds = ("Main", "Segmentation") if self.wanted == ("boxes",) else ("Segmentation", "Main")
        folders = [root / "ImageSets" / kind for kind in kinds]
        sets, name = (
            next((folder for folder in folders if folder.is_dir()), None),
            getattr(self, split),
        )
        if sets is None:
            ending = "xml" if self.needs_objects else "png"
            folder = "Annotations" if self.needs_objects else "SegmentationClass"
            files = _folder(root, folder).glob(f"*.{ending}")
            return sorted(nfc(path.stem) for path in files) if split == "train" else None
        if not name:
            return None
        file = sets / f"{name}.txt"
        if not file.exists():
            there = sorted(path.stem for path in sets.glob("*.txt"))
            raise DataError(
                f"{file}: there is no such image set; there are "
                f"{there[:8]}{did_you_mean(name, there)}"
            )
        return listed_stems(file, images, faults)

    def _file(self, root: Path, stem: str) -> VocFile:
        """The annotation of an image; of one that a list names outside the folder, nothing."""
        path = inside(_folder(root, "Annotations"), f"{stem}.xml")
        return VocFile(stem, path or root, self.needs_objects and path is not None)

    def _example(
        self,
        root: Path,
        file: VocFile,
        images: dict[str, Path],
        names: tuple[str, ...],
        faults: Faults,
    ) -> Example | None:
        """One image with what is said of it, or None where it cannot be used."""
        path = images.get(file.stem) or images.get(file.image_stem())
        if path is None:
            return faults.add(
                f"{root}: there is no image {file.stem!r}, which an image set or annotation names",
                kind="no such image",
            )
        masks = {
            name: _mask_path(root, name, file.stem) for name in MASK_FOLDERS if name in self.wanted
        }
        if any(fit_mask(path, mask, faults) is None for mask in masks.values()):
            return None
        if file.problem:
            return faults.add(file.problem, kind="no annotation")
        size = check_image_file(path, faults, declared=file.declared_size(faults))
        if size is None:
            return None
        example = Example(image=path, size=size, name=str(path))
        if self.needs_objects:
            objects = self._objects(file, size, names, masks.get("instance_masks"), faults)
            example = replace(example, objects=objects)
        if "segmentation" in masks:
            count = 1 + len(names) if names else None
            example = replace(
                example, segmentation=partial(_class_map, masks["segmentation"], count)
            )
        return example

    def _objects(
        self,
        file: VocFile,
        size: tuple[int, int],
        names: tuple[str, ...],
        mask: Path | None,
        faults: Faults,
    ) -> Objects:
        """The objects of an XML file that keep the rules. Their numbers in `mask` count from 1."""
        places = {nfc(name): label for label, name in enumerate(names)}
        there = set() if mask is None else set(np.unique(MEANING.read(mask, name=str(mask))))
        rows = []
        for number, (name, box, difficult) in enumerate(file.objects(faults), 1):
            where, ignored = f"{file.path}: object {number}", difficult and not self.difficult
            if name not in places:
                faults.add(
                    f"{where} is of class {name!r}, which is not one of "
                    f"{list(names)[:30]}{did_you_mean(name, names)}",
                    kind="unknown class",
                )
            elif box is None:
                faults.add(
                    f"{where} ({name}): its bndbox has no {', '.join(CORNERS)}, or they are no "
                    "numbers; it must be four numbers",
                    kind="box of no numbers",
                )
            elif mask is not None and number not in there and not ignored:
                faults.add(
                    f"{mask}: no pixel is {number}, the number of an object of {file.path.name}",
                    kind="object without a pixel",
                )
            else:
                first, shape = self.first_pixel, None if mask is None else Numbered(mask, number)
                corners = [box[0] - first, box[1] - first, box[2], box[3]]
                rows.append(Row(where, corners, places[name], shape, ignored))
        return check_objects(rows, size, faults=faults)


def _mask_path(root: Path, entry: str, stem: str) -> Path:
    return root / MASK_FOLDERS[entry] / f"{stem}.png"


def _class_map(mask: Path, num_classes: int | None, faults: Faults) -> np.ndarray:
    pixels = MEANING.read(mask, name=str(mask))
    return MEANING.class_numbers(pixels, faults, name=str(mask), num_classes=num_classes)


def _folder(root: Path, name: str) -> Path:
    """`root/name`, or where there is no such folder `root` itself."""
    return root / name if (root / name).is_dir() else root
