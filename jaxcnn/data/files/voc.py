"""Data sets in the form of Pascal VOC: XML files of boxes, and PNG masks.

Source of the form: Everingham et al., "The Pascal visual object classes (VOC) challenge", 2010, and
the development kit's documentation.
"""

import functools
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.files.annotated import (
    AnnotatedImages,
    Faults,
    check_boxes,
    check_entries,
    check_image_file,
    choose_largest,
    image_files,
    pad_rows,
    resize_nearest,
)
from jaxcnn.data.files.label_images import read_index_mask
from jaxcnn.data.files.mask_folder import existing_folder, mask_fits, read_segmentation
from jaxcnn.errors import ConfigError, DataError, did_you_mean

ENTRIES = ("boxes", "instance_masks", "segmentation")
CORNERS = ("ymin", "xmin", "ymax", "xmax")
VOC_CLASSES = (
    *(
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
    ),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class VocImage:
    """One image: its objects' boxes [n, 4] in [0, 1], labels [n] and numbers [n] in the mask of
    objects; the two mask files, if read.
    """

    path: Path
    boxes: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    segmentation: Path | None
    objects: Path | None


@dataclass(frozen=True)
class Voc(AnnotatedImages):
    """A folder in the form of VOC: JPEGImages/, Annotations/, ImageSets/Main/NAME.txt and, for
    masks, SegmentationClass/ and SegmentationObject/. Without Annotations or JPEGImages, XML files
    or images lie in `path` itself.

    `train`, `eval` and `test` name files of ImageSets/Main (of ImageSets/Segmentation, if `entries`
    hold masks), whose lines begin with the images' names. Where there is no such folder, all
    annotated images are for training, less the `eval_fraction` held out. `entries` are those to
    give besides "image" uint8 [H, W, channels]:

        "boxes"           boxes float32 [N, 4] (y0, x0, y1, x1) in [0, 1], boxes_mask float32 [N],
        box_labels int32 [N]
        "instance_masks"  uint8 [N, H, W], 0 or 255, rows in the order of the boxes, which come with
        them
        "segmentation"    int32 [H, W]: 0 background, 1 + label, 255 unknown

    names: of the classes, label 0 first; () for those that occur in training, sorted.
    max_items: N; 0 for the most objects that an image has. difficult: whether objects so marked are
        given too.
    first_pixel: 1 where corners are pixel numbers from 1, both ends in the box, as in VOC; 0 where
        they are distances from the upper left.
    Broken labels, as `invalid` says: missing images, other sizes than the XML says, unknown
    classes, boxes that are empty or lie outside, masks of another size or without a pixel of an
    object. Errors: DataError.
    """

    path: str
    train: str = "train"
    eval: str = "val"
    test: str = ""
    entries: tuple[str, ...] = ("boxes",)
    names: tuple[str, ...] = VOC_CLASSES
    difficult: bool = False
    first_pixel: int = 1
    max_items: int = 0

    def __post_init__(self):
        check_entries("Voc", self.entries, ENTRIES)
        if self.first_pixel not in (0, 1):
            raise ConfigError(
                f"Voc: first_pixel is {self.first_pixel}; corners are counted from 0 or from 1"
            )

    def read(self) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
        """The class names, and the images of each split."""
        root = existing_folder(
            Path(self.path).expanduser(), "JPEGImages, Annotations and ImageSets"
        )
        images = image_files(_folder(root, "JPEGImages"))
        stems = {
            split: found
            for split in ("train", "eval", "test")
            if (found := self._stems(root, split))
        }
        names = self.names
        if not names and self._needs_objects:
            trees = (
                parse(path)
                for stem in stems["train"]
                if (path := _folder(root, "Annotations") / f"{stem}.xml").exists()
            )
            names = tuple(
                sorted(
                    {_text(item, "name") for tree in trees for item in tree.iter("object")} - {""}
                )
            )
        out = {}
        for split, chosen in stems.items():
            faults = Faults(f"Voc {root}, {split}", self.invalid)
            found = (self._image(root, stem, images, names, faults) for stem in chosen)
            out[split] = [image for image in found if image is not None]
            faults.warn()
        return names, out

    @property
    def _needs_objects(self) -> bool:
        return bool({"boxes", "instance_masks"} & set(self.entries))

    def _stems(self, root: Path, split: str) -> list[str]:
        """The names of a split's images."""
        kind, name = "Main" if self.entries == ("boxes",) else "Segmentation", getattr(self, split)
        sets = root / "ImageSets" / kind
        if not sets.is_dir():
            folder = (
                _folder(root, "Annotations")
                if self._needs_objects
                else _folder(root, "SegmentationClass")
            )
            return (
                sorted(
                    path.stem for path in folder.glob("*.xml" if self._needs_objects else "*.png")
                )
                if split == "train"
                else []
            )
        if not name:
            return []
        file = sets / f"{name}.txt"
        if not file.exists():
            there = sorted(path.stem for path in sets.glob("*.txt"))
            raise DataError(
                f"{file}: there is no such image set; there are "
                f"{there[:8]}{did_you_mean(name, there)}"
            )
        return [line.split()[0] for line in file.read_text("utf-8").splitlines() if line.strip()]

    def _image(
        self, root: Path, stem: str, images: dict[str, Path], names: tuple[str, ...], faults: Faults
    ) -> VocImage | None:
        """One image with what is said of it, or None where it cannot be used."""
        if stem not in images:
            return faults.add(
                f"{root}: there is no image {stem!r}, which an image set or annotation names"
            )
        path = images[stem]
        masks = {
            name: root / folder / f"{stem}.png"
            for name, folder in MASK_FOLDERS.items()
            if name in self.entries
        }
        if any(not mask_fits(path, mask, faults) for mask in masks.values()):
            return None
        boxes, labels, numbers = (
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int32),
            np.zeros(0, np.int32),
        )
        if self._needs_objects:
            found = self._objects(_folder(root, "Annotations") / f"{stem}.xml", path, names, faults)
            if found is None:
                return None
            boxes, labels, numbers = found
        if "instance_masks" in masks and len(numbers):
            drawn = np.isin(
                numbers, read_index_mask(masks["instance_masks"], name=str(masks["instance_masks"]))
            )
            for number in numbers[~drawn]:
                faults.add(
                    f"{masks['instance_masks']}: no pixel is {number}, the number of an object of "
                    f"{stem}.xml"
                )
            boxes, labels, numbers = boxes[drawn], labels[drawn], numbers[drawn]
        if self.max_items:
            chosen = choose_largest(boxes, self.max_items, name=str(path), faults=faults)
            boxes, labels, numbers = boxes[chosen], labels[chosen], numbers[chosen]
        return VocImage(
            path, boxes, labels, numbers, masks.get("segmentation"), masks.get("instance_masks")
        )

    def _objects(
        self, file: Path, image: Path, names: tuple[str, ...], faults: Faults
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Boxes, labels and numbers (from 1) of the objects of an XML file that keep the rules;
        None if the file fits no image.
        """
        try:
            tree = parse(file)
        except DataError as error:
            return faults.add(str(error))
        height, width = _number(tree, "size/height"), _number(tree, "size/width")
        declared = (height, width) if height and width else None
        size = check_image_file(image, faults, declared=declared)
        if size is None:
            return None
        corners, labels, numbers = [], [], []
        for number, item in enumerate(tree.iter("object"), 1):
            name, where = _text(item, "name"), f"{file}: object {number}"
            found = [_number(item, f"bndbox/{corner}") for corner in CORNERS]
            box = [number for number in found if number is not None]
            if not self.difficult and _text(item, "difficult") == "1":
                continue
            if name not in names:
                faults.add(
                    f"{where} is of class {name!r}, which is not one of "
                    f"{list(names)[:30]}{did_you_mean(name, names)}"
                )
            elif len(box) < len(found):
                faults.add(
                    f"{where} ({name}): its bndbox is (ymin, xmin, ymax, xmax) = {found}; it must "
                    "be four numbers"
                )
            else:
                first = self.first_pixel
                corners.append([box[0] - first, box[1] - first, box[2], box[3]])
                labels.append(names.index(name))
                numbers.append(number)
        shares = np.array(corners, np.float64).reshape(-1, 4) / np.array([*size, *size])
        boxes, kept = check_boxes(
            shares,
            slack=1 / np.array(size),
            name=lambda i: f"{file}: object {numbers[i]}",
            faults=faults,
        )
        return boxes[kept], np.array(labels, np.int32)[kept], np.array(numbers, np.int32)[kept]

    @functools.cached_property
    def _rows(self) -> int:
        """N."""
        return self.max_items or max(
            1, *(len(image.boxes) for images in self._read[1].values() for image in images)
        )

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        out = self.image_spec()
        if self._needs_objects:
            shapes = {
                "boxes": ((self._rows, 4), np.float32),
                "boxes_mask": ((self._rows,), np.float32),
                "box_labels": ((self._rows,), np.int32),
            }
            out |= {name: jax.ShapeDtypeStruct(*entry) for name, entry in shapes.items()}
        if "instance_masks" in self.entries:
            out["instance_masks"] = jax.ShapeDtypeStruct((self._rows, *self.image_size), np.uint8)
        if "segmentation" in self.entries:
            out["segmentation"] = jax.ShapeDtypeStruct(self.image_size, np.int32)
        return out

    def decode(self, item: VocImage, faults: Faults) -> dict[str, np.ndarray]:
        """One image with its entries."""
        out = {"image": self.read_image(item.path)}
        if self._needs_objects:
            columns = {
                "boxes": item.boxes,
                "boxes_mask": np.ones(len(item.boxes), np.float32),
                "box_labels": item.labels,
            }
            out |= {name: pad_rows(rows, self._rows) for name, rows in columns.items()}
        if item.objects is not None:
            pixels = resize_nearest(
                read_index_mask(item.objects, name=str(item.objects)), self.image_size
            )
            shown = np.where(pixels == item.numbers[:, None, None], 255, 0).astype(np.uint8)
            out["instance_masks"] = pad_rows(shown, self._rows)
        if item.segmentation is not None:
            num_classes = 1 + len(self.label_names) if self.label_names else None
            out["segmentation"] = read_segmentation(
                item.segmentation, self.image_size, faults, num_classes=num_classes
            )
        return out


MASK_FOLDERS = {"segmentation": "SegmentationClass", "instance_masks": "SegmentationObject"}


def parse(file: Path) -> ElementTree.Element:
    """The root of an XML file. Errors: DataError naming the file and the place."""
    try:
        return ElementTree.parse(file).getroot()
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such annotation file") from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{file}: cannot be read as XML ({error}); repair or remove it") from error


def _folder(root: Path, name: str) -> Path:
    """`root/name`, or where there is no such folder `root` itself."""
    return root / name if (root / name).is_dir() else root


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: ElementTree.Element, path: str) -> float | None:
    """The number in an element, None where there is none."""
    try:
        return float(_text(element, path))
    except ValueError:
        return None
