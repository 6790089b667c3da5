"""COCO annotation files: boxes, masks, keypoints and captions of people's own images in the form of
the COCO data set.

The format: Lin et al., "Microsoft COCO: common objects in context", 2014; a JSON object with
"images", "annotations" and "categories".
"""

import functools
from dataclasses import dataclass, field
from pathlib import Path

from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.coco_file import FileReader
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.vocabulary import caption_vocabulary


@dataclass(frozen=True)
class Coco(Annotated):
    """Images and a COCO annotation file `path`; `images` is the folder that its file names start
    from (default: that of the file itself).

    `entries` (shapes and dtypes: `jaxcnn.core.batch.ENTRIES`): "boxes"; "instance_masks", rows in
    the order of the boxes, which come with them; "segmentation", painted of the objects: 0
    background, 1 + label, smaller objects on larger ones, crowds 255, ignored; "points" of each
    object, boxes come with them; "captions": label_names is then the vocabulary, if nothing else is
    wanted. With `crops`: "points" or "label".

    Labels count the categories from 0 in the order of their ids; the names are those of the
    training file, and other files are matched by name. Crowds (iscrowd) are groups that nobody took
    apart: they lie in rows after the objects, "boxes_ignored" and "boxes_crowd" 1, boxes_mask 0.
    Images without objects are kept. "box_areas" are those of the file, in pixels of the original.

    eval_path, test_path and their images: the files of these splits; without eval_path,
        `eval_fraction` of the images is held out.
    vocabulary: the words of captions; () for those that occur at least `min_count` times in
        training. Longer captions are cut.
    As exporters write them: numbers may be strings, sizes 0 or -1 where they are unknown, paths
        those of Windows or of another machine (then only the end counts, which is noted), a root
        category without annotations is no class (noted), a missing bbox is made of the shape.
    Broken labels, as `invalid` says: images that are missing or of another size than the file says,
    unknown images and categories, boxes that are empty or lie outside, polygons without area, run
    lengths of another size, keypoints of another number. Errors: DataError.
    """

    ENTRIES = ("boxes", "instance_masks", "segmentation", "points", "captions")

    path: str
    images: str = ""
    entries: tuple[str, ...] = field(default=("boxes",), kw_only=True)
    eval_path: str = ""
    eval_images: str = ""
    test_path: str = ""
    test_images: str = ""
    vocabulary: tuple[str, ...] = ()
    num_captions: int = 5
    caption_length: int = 22
    min_count: int = 5

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`; no names where captions alone are wanted."""
        path, images = {
            "train": (self.path, self.images),
            "eval": (self.eval_path, self.eval_images),
            "test": (self.test_path, self.test_images),
        }[split]
        if not path:
            return None
        file = Path(path).expanduser()
        root = Path(images).expanduser() if images else file.parent
        reader = FileReader(file, root, names=names, entries=self.wanted, faults=faults)
        return reader.names, reader.read()

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        if self.vocabulary:
            return self.vocabulary
        sentences = (text for image in self._read[1]["train"] for text in image.captions)
        return caption_vocabulary(sentences, min_count=self.min_count)

    def axis(self, letter: str) -> int:
        fixed = {"R": self.num_captions, "L": self.caption_length}
        return fixed[letter] if letter in fixed else super().axis(letter)
