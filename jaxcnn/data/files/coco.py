"""COCO annotation files: boxes, masks, keypoints and captions of people's own images in the form of
the COCO data set.

The format: Lin et al., "Microsoft COCO: common objects in context", 2014; a JSON object with
"images", "annotations" and "categories".
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.core.batch import IGNORED
from jaxcnn.data.files.annotated import (
    AnnotatedImages,
    Faults,
    check_entries,
    choose_largest,
    pad_rows,
    resize_image,
    resize_nearest,
)
from jaxcnn.data.files.coco_file import CocoImage, FileReader, category_names, load, take_objects
from jaxcnn.data.files.images import read_image
from jaxcnn.data.vocabulary import caption_vocabulary, encode_captions
from jaxcnn.errors import ConfigError
from jaxcnn.ops import masks

ENTRIES = ("boxes", "instance_masks", "segmentation", "points", "captions")
CROP_ENTRIES = ("points", "label")
OBJECT_ENTRIES = {"boxes", "instance_masks", "points"}  # that have a row for each object


@dataclass(frozen=True)
class Coco(AnnotatedImages):
    """Images and a COCO annotation file `path`; `images` is the folder that its file names start
    from (default: that of the file itself).

    `entries` are those to give besides "image" uint8 [H, W, channels]:

        "boxes"           boxes float32 [N, 4] (y0, x0, y1, x1) in [0, 1], boxes_mask float32 [N],
        box_labels int32 [N]
        "instance_masks"  uint8 [N, H, W], 0 or 255, rows in the order of the boxes, which come with
        them
        "segmentation"    int32 [H, W]: 0 background, 1 + label; smaller objects lie on larger ones,
        and crowds are 255, ignored
        "points"          points float32 [N, J, 2] (y, x) in [0, 1] and points_mask [N, J], 1 where
        labelled; boxes come with them
        "captions"        int32 [num_captions, caption_length] token numbers (see
        `jaxcnn.ops.decoding`); label_names is the vocabulary

    Labels count the categories from 0 in the order of their ids; the names are those of the
    training file, and other files are matched by name. N is `max_items`, or if that is 0 the most
    objects that an image has. Crowds (iscrowd) are groups that nobody took apart: they are no
    objects. Images without objects are kept.

    With `crops` each object is an example of its own: the image cut to `margin` times its box,
    widened to the aspect ratio of image_size and black outside the picture, as for pose (Xiao et
    al., "Simple baselines for human pose estimation and tracking", 2018, section 3). entries are
    then "points" (float32 [J, 2] and points_mask [J]; objects without a labelled point are left
    out) or "label" int32.

    eval_path, test_path and their images: the files of these splits; without eval_path,
        `eval_fraction` of the images is held out.
    vocabulary: the words of captions; () for those that occur at least `min_count` times in
        training. Longer captions are cut.
    Broken labels, as `invalid` says: images that are missing or of another size than the file says,
    unknown images and categories, boxes that are empty or lie outside, polygons without area, run
    lengths of another size, keypoints of another number. Errors: DataError.
    """

    path: str
    images: str = ""
    entries: tuple[str, ...] = ("boxes",)
    eval_path: str = ""
    eval_images: str = ""
    test_path: str = ""
    test_images: str = ""
    max_items: int = 0
    crops: bool = False
    margin: float = 1.25
    vocabulary: tuple[str, ...] = ()
    num_captions: int = 5
    caption_length: int = 22
    min_count: int = 5

    def __post_init__(self):
        check_entries(
            "Coco with crops" if self.crops else "Coco",
            self.entries,
            CROP_ENTRIES if self.crops else ENTRIES,
        )
        if not self.margin > 0:
            raise ConfigError(
                f"Coco: margin is {self.margin}; a crop is so many times as large as the object's "
                "box, such as 1.25"
            )

    def read(self) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
        """Names of the categories (of the words, if there are captions alone), and the images of
        each split.
        """
        files = {
            "train": (self.path, self.images),
            "eval": (self.eval_path, self.eval_images),
            "test": (self.test_path, self.test_images),
        }
        loaded = {
            split: (load(path), Path(path).expanduser(), images)
            for split, (path, images) in files.items()
            if path
        }
        names = category_names(*loaded["train"][:2]) if self.entries != ("captions",) else ()
        out = {}
        for split, (content, file, images) in loaded.items():
            faults = Faults(f"Coco {file}", self.invalid)
            root = Path(images).expanduser() if images else file.parent
            found = FileReader(file, root, content, names, self.entries, faults).read()
            out[split] = [self._limit(image, faults) for image in found]
            faults.warn()
        if self.crops:
            if "eval" not in out:  # before an image's objects part
                out["train"], out["eval"] = self.hold_out(out["train"])
            out = {
                split: [part for image in found for part in _objects_alone(image, self.entries)]
                for split, found in out.items()
            }
        return names, out

    def _limit(self, image: CocoImage, faults: Faults) -> CocoImage:
        """`image` with at most `max_items` objects, if that is not 0."""
        if not self.max_items or not OBJECT_ENTRIES & set(self.entries):
            return image
        chosen = choose_largest(image.boxes, self.max_items, name=str(image.path), faults=faults)
        return take_objects(image, chosen)

    @property
    def label_names(self) -> tuple[str, ...]:
        return self._words if self.entries == ("captions",) else self._read[0]

    @functools.cached_property
    def _words(self) -> tuple[str, ...]:
        if self.vocabulary:
            return self.vocabulary
        sentences = (text for image in self._read[1]["train"] for text in image.sentences)
        return caption_vocabulary(sentences, min_count=self.min_count)

    @functools.cached_property
    def _rows(self) -> int:
        """N."""
        return self.max_items or max(
            1, *(len(image.boxes) for images in self._read[1].values() for image in images)
        )

    @functools.cached_property
    def _num_points(self) -> int:
        return self._read[1]["train"][0].points.shape[1]

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        out, size = self.image_spec(), self.image_size
        rows = () if self.crops else (self._rows,) if set(self.entries) & OBJECT_ENTRIES else None
        shapes: dict[str, Any] = {}
        if self.crops:
            shapes["label"] = ((), np.int32)
        elif rows:
            shapes |= {
                "boxes": ((*rows, 4), np.float32),
                "boxes_mask": (rows, np.float32),
                "box_labels": (rows, np.int32),
            }
        if "instance_masks" in self.entries:
            shapes["instance_masks"] = ((*(rows or ()), *size), np.uint8)
        if "segmentation" in self.entries:
            shapes["segmentation"] = (size, np.int32)
        if "points" in self.entries:
            shape = (*(rows or ()), self._num_points)
            shapes |= {"points": ((*shape, 2), np.float32), "points_mask": (shape, np.float32)}
        if "captions" in self.entries:
            shapes["captions"] = ((self.num_captions, self.caption_length), np.int32)
        return out | {name: jax.ShapeDtypeStruct(*entry) for name, entry in shapes.items()}

    def decode(self, item: CocoImage, faults: Faults) -> dict[str, np.ndarray]:
        """One image with its entries, or with `crops` one object."""
        if self.crops:
            return self._crop(item)
        out, wanted, size = (
            {"image": self.read_image(item.path)},
            set(self.entries),
            self.image_size,
        )
        if wanted & OBJECT_ENTRIES:
            rows, count = self._rows, len(item.boxes)
            out |= {
                "boxes": pad_rows(item.boxes, rows),
                "boxes_mask": pad_rows(np.ones(count, np.float32), rows),
            }
            out["box_labels"] = pad_rows(item.labels, rows)
        if "instance_masks" in wanted:
            out["instance_masks"] = np.zeros((self._rows, *size), np.uint8)
            for mask, shape in zip(out["instance_masks"], item.shapes, strict=False):
                mask[draw(shape, item.size, size)] = 255
        if "points" in wanted:
            points, visible = _shares(item.points, np.zeros(2), np.array(item.size))
            out |= {
                "points": pad_rows(points, self._rows),
                "points_mask": pad_rows(visible, self._rows),
            }
        if "segmentation" in wanted:
            out["segmentation"] = paint(item, size)
        if "captions" in wanted:
            out["captions"] = encode_captions(
                item.sentences,
                self._words,
                num_captions=self.num_captions,
                length=self.caption_length,
            )
        return out

    def _crop(self, item: CocoImage) -> dict[str, np.ndarray]:
        """The only object of `item`."""
        height, width = item.size
        y0, x0, y1, x1 = item.boxes[0].astype(np.float64) * [height, width, height, width]
        aspect = self.image_size[0] / self.image_size[1]
        tall = max(y1 - y0, (x1 - x0) * aspect) * self.margin
        extent = np.array([tall, tall / aspect])
        start = np.array([y0 + y1, x0 + x1]) / 2 - extent / 2
        first, last = (
            np.round(start).astype(int),
            np.maximum(np.round(start + extent).astype(int), np.round(start).astype(int) + 1),
        )
        image = read_image(item.path, size=None, channels=self.channels)
        window = np.zeros((*(last - first), self.channels), np.uint8)
        low, high = np.maximum(first, 0), np.minimum(last, item.size)
        (top, left), (bottom, right) = low - first, high - first
        window[top:bottom, left:right] = image[low[0] : high[0], low[1] : high[1]]
        out = {"image": resize_image(window, self.image_size), "label": item.labels[0]}
        if "points" in self.entries:
            points, visible = _shares(item.points[0], first, last - first)
            out |= {"points": points, "points_mask": visible}
        return out


def _objects_alone(image: CocoImage, entries: tuple[str, ...]) -> list[CocoImage]:
    """Each object as an image of its own; with "points", only those that have one."""
    rows = [
        i
        for i in range(len(image.boxes))
        if "points" not in entries or (image.points[i, :, 2] > 0).any()
    ]
    return [take_objects(image, np.array([i])) for i in rows]


def _shares(
    points: np.ndarray, corner: np.ndarray, extent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's points [..., J, 3] as (y, x) in shares of a window, 0 where not labelled or outside,
    and which are inside, [..., J].
    """
    places = (points[..., 1::-1] - corner) / extent
    visible = (points[..., 2] > 0) & (places >= 0).all(axis=-1) & (places <= 1).all(axis=-1)
    return np.where(visible[..., None], places, 0.0).astype(np.float32), visible.astype(np.float32)


def draw(shape: Any, size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    """An object's polygons or run lengths, of an image of `size`, as a mask [*new_size] bool."""
    if isinstance(shape, dict):
        return resize_nearest(masks.decode(shape), new_size)
    scale = np.array([new_size[1] / size[1], new_size[0] / size[0]])
    return masks.fill_polygons(
        [(np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in shape], new_size
    )


def paint(image: CocoImage, new_size: tuple[int, int]) -> np.ndarray:
    """The label map int32 [*new_size]: 0, or 1 + label of the smallest object there, or 255 where
    only a crowd is.
    """
    out = np.zeros(new_size, np.int32)
    for shape in image.crowds:
        out[draw(shape, image.size, new_size)] = IGNORED
    drawn = [draw(shape, image.size, new_size) for shape in image.shapes]
    for i in sorted(range(len(drawn)), key=lambda i: -int(drawn[i].sum())):
        out[drawn[i]] = 1 + image.labels[i]
    return out
