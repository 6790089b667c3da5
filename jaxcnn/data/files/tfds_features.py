"""What is wanted of a TFDS set, and what its features make of it: names, shapes and dtypes."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import numpy as np

from jaxcnn.data.crops import check_cropping
from jaxcnn.data.example import COMPANIONS, entry_specs
from jaxcnn.data.files.mask_values import Colour, Meaning
from jaxcnn.errors import ConfigError, DataError, did_you_mean

# name features of objects, one for each of `boxes`
OBJECT_FIELDS = ("box_labels", "instance_masks", "skip_objects", "crowd_objects", "areas")
FITS = ("stretch", "crop")
POINT_UNITS = ("pixels", "shares")


@dataclass(frozen=True)
class Wanted:
    """The entries that are wanted of the set `name`: each field names a feature of the set, with
    dots into nested ones, or is "" for none.

        Tfds("voc/2007", eval="validation", label="", image_size=(384, 384), boxes="objects.bbox",
             box_labels="objects.label", skip_objects="objects.is_difficult", max_items=42)
        Tfds("oxford_iiit_pet", image_size=(128, 128), segmentation="segmentation_mask",
             segmentation_offset=-1)
        Tfds("oxford_iiit_pet", label="species", image_size=(128, 128), boxes="head_bbox")
        Tfds("celeb_a", label="", points=("landmarks.lefteye_x", "landmarks.lefteye_y",
             "landmarks.nose_x", "landmarks.nose_y"))
        Tfds("div2k/bicubic_x2", eval="validation", image="lr", target="hr", label="",
             image_size=(96, 96), fit="crop", crops=8)

    image: "image" uint8 [H, W, C]. image_size: (height, width) resizes (see `images.read_image`)
        and is needed where images differ in size; () keeps the size.
    label: "label" int32 (float32 where the set has floats).
    boxes: (y0, x0, y1, x1) in [0, 1]; a sequence fills "boxes" float32 [max_items, 4] and
        "boxes_mask" [max_items], a single box [1, 4].
    box_labels, instance_masks: one for each box; "box_labels" int32 [N], "instance_masks" uint8 [N,
        H, W], 0 or 255. label_names are then those of box_labels.
    skip_objects: a feature of objects; those for which it is true or not 0 (difficult) are ignored:
        they lie in rows after the others, "boxes_ignored" 1 and boxes_mask 0. crowd_objects: the
        same for groups of objects (is_crowd), "boxes_crowd" 1, too. areas: "box_areas", their areas
        in pixels of the original; without it, those of the masks or the boxes.
    max_items: N, room for so many objects; of more, only the largest are kept, as a fault.
    segmentation: an image of numbers (a palette's indices, or greys), "segmentation" int32 [H, W],
        255 where no class is known; `segmentation_offset` is added, and what is then negative
        becomes 255. segmentation_values, segmentation_colours, segmentation_ignored: what other
        values or colours stand for, as `values`, `colours` and `ignored` of MaskFolder; where they
        are not given, colours are refused, and values with two meanings, too.
    points: names of x and y in turn, each of one or of J numbers, or one name of an array [J, 2] of
        (x, y); "points" float32 [J, 2] (y, x) and "points_mask" [J], 0 outside the image.
        `point_units`: "pixels" of the whole image, or "shares" of its size.
    fit: "stretch" resizes to image_size without regard to the aspect ratio; "crop" cuts it out (of
        images and segmentation only): the middle, or, with `crops` above 1, so many examples an
        image at random places, which are functions of the example's number.
    crop_area, crop_aspect: windows that are drawn anew at each visit in training, of images and
        segmentation alone, see `annotated.Annotated`.
    target: the same picture `target_scale` times larger, for super-resolution, cut at the same
        place; "target" uint8.
    invalid: labels that break a rule (boxes that are empty or outside, features of different
        lengths, masks of another size, too many objects) are left out with a warning that counts
        them ("skip"; a set of others cannot be repaired), or a DataError ("error").
    """

    name: str
    _: KW_ONLY
    image: str = "image"
    label: str = "label"
    image_size: tuple[int, int] | tuple[()] = ()
    boxes: str = ""
    box_labels: str = ""
    instance_masks: str = ""
    skip_objects: str = ""
    crowd_objects: str = ""
    areas: str = ""
    max_items: int = 32
    segmentation: str = ""
    segmentation_offset: int = 0
    segmentation_values: tuple[int, ...] = ()
    segmentation_colours: tuple[Colour, ...] = ()
    segmentation_ignored: int | Colour | None = None
    points: tuple[str, ...] = ()
    point_units: str = "pixels"
    fit: str = "stretch"
    crops: int = 1
    crop_area: tuple[float, float] | None = None
    crop_aspect: tuple[float, float] | None = None
    target: str = ""
    target_scale: int = 2
    invalid: str = "skip"

    @property
    def meaning(self) -> Meaning:
        """What the pixels of `segmentation` stand for."""
        given = self.segmentation_values, self.segmentation_colours, self.segmentation_ignored
        return Meaning(*given, fields="segmentation_")


def feature_names(wanted: Wanted) -> list[tuple[str, str]]:
    """(field, feature's dotted name) of all features that `wanted` names."""
    fields = ("image", "target", "label", "segmentation", "boxes", *OBJECT_FIELDS)
    named = [(field, getattr(wanted, field)) for field in fields]
    return [(field, name) for field, name in named if name] + [
        ("points", name) for name in wanted.points
    ]


def find_feature(features: Any, path: str) -> tuple[Any, bool]:
    """The feature at a dotted path, and whether it lies in a sequence, of which it is then one
    element. KeyError if there is none.
    """
    node, repeated = features, False
    for part in path.split("."):
        children = dict(node.items()) if hasattr(node, "items") else {}
        node = children[part]
        if hasattr(node, "feature"):  # a Sequence
            node, repeated = node.feature, True
    return node, repeated


def all_paths(features: Any, *, prefix: str = "") -> Iterator[str]:
    """The dotted names of all features."""
    for name, node in features.items():
        inner = getattr(node, "feature", node)
        if hasattr(inner, "items"):
            yield from all_paths(inner, prefix=f"{prefix}{name}.")
        else:
            yield prefix + name


def check_features(wanted: Wanted, features: Any) -> dict[str, Any]:
    """The named features by their dotted names.

    Errors: ConfigError for a name that the set has not, or fields that do not go together.
    """
    there, out = sorted(all_paths(features)), {}
    for field, name in feature_names(wanted):
        try:
            out[name], _ = find_feature(features, name)
        except KeyError:
            raise ConfigError(
                f"Tfds({wanted.name!r}): {field} is {name!r}; the set has the features "
                f"{there}{did_you_mean(name, there)}"
                + ("; label='' for none" if field == "label" and "label" not in there else "")
            ) from None
    check_cropping(wanted.crop_area, wanted.crop_aspect, where=f"Tfds({wanted.name!r})")
    wanted.meaning.check(f"Tfds({wanted.name!r})", ())
    for problem in _problems(wanted):
        raise ConfigError(f"Tfds({wanted.name!r}): {problem}")
    return out


def _problems(wanted: Wanted) -> Iterator[str]:
    """What is wrong with the fields, whatever the set is."""
    if wanted.fit not in FITS:
        yield f"fit is {wanted.fit!r}; it must be one of {', '.join(FITS)}"
    if wanted.point_units not in POINT_UNITS:
        yield (f"point_units is {wanted.point_units!r}; it must be one of {', '.join(POINT_UNITS)}")
    if wanted.max_items < 1:
        yield f"max_items is {wanted.max_items}; there must be room for at least 1 object"
    alone = [field for field in OBJECT_FIELDS if getattr(wanted, field) and not wanted.boxes]
    if alone:
        yield (
            f"{', '.join(alone)} describe objects; name the set's boxes too: boxes='objects.bbox'"
        )
    if wanted.fit == "crop" and (wanted.boxes or wanted.points):
        yield ("fit='crop' moves images and segmentation only; boxes and points need fit='stretch'")
    if wanted.crop_area and (wanted.boxes or wanted.points or wanted.fit == "crop"):
        yield (
            "crop_area draws windows of images and segmentation only; leave out boxes, points and "
            "fit='crop', or let augment.crop_resized move them"
        )
    if wanted.segmentation_offset and wanted.meaning != Meaning(fields="segmentation_"):
        yield (
            f"segmentation_offset is {wanted.segmentation_offset} and values, colours or ignored "
            "say what pixels mean already; leave out one of both"
        )
    if wanted.crops < 1 or wanted.target_scale < 1:
        yield (f"crops={wanted.crops}, target_scale={wanted.target_scale}; both are at least 1")
    if wanted.fit != "crop" and (wanted.crops > 1 or wanted.target):
        yield (
            "crops and target need fit='crop': resizing would undo what a larger target has to "
            "teach"
        )


def feature_specs(wanted: Wanted, features: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of one example. Errors: ConfigError, DataError."""
    found = check_features(wanted, features)
    image = _image_spec(wanted, found[wanted.image])
    scale, (height, width, channels) = wanted.target_scale, image.shape
    lengths = {"H": height, "W": width, "C": channels}
    out, names = {"image": image}, ["segmentation"] if wanted.segmentation else []
    if wanted.label:
        out["label"] = _label_spec(wanted, features)
    if wanted.target:
        larger = (height * scale, width * scale, channels)
        out["target"] = jax.ShapeDtypeStruct(larger, np.uint8)
    if wanted.boxes:
        lengths["N"] = _num_rows(wanted, features)
        names += ["boxes", *COMPANIONS["boxes"]]
        names += ["instance_masks"] if wanted.instance_masks else []
        if not wanted.box_labels:
            names.remove("box_labels")
    if wanted.points:
        lengths["J"] = _num_points(wanted, features)
        names += ["points", "points_mask"]
    specs = entry_specs([n for n in names if "points" not in n], lengths.__getitem__)
    points = entry_specs([n for n in names if "points" in n], lengths.__getitem__, rows=False)
    return out | specs | points


def _image_spec(wanted: Wanted, image: Any) -> jax.ShapeDtypeStruct:
    where = f"Tfds({wanted.name!r})"
    if len(image.shape) != 3:
        raise ConfigError(
            f"{where}: image is {wanted.image!r}, which has shape {image.shape}; an image has "
            "(height, width, channels)"
        )
    *size, channels = image.shape
    size = wanted.image_size or tuple(size)
    if len(size) != 2 or None in size:
        raise ConfigError(
            f"{where}: images have shape {image.shape}; set image_size=(height, width)"
        )
    if image.np_dtype != np.uint8:
        raise DataError(
            f"{where}: {wanted.image!r} is {image.np_dtype}; only uint8 images can be read"
        )
    return jax.ShapeDtypeStruct((*size, 1 if channels == 1 else 3), np.uint8)


def _label_spec(wanted: Wanted, features: Any) -> jax.ShapeDtypeStruct:
    label, repeated = find_feature(features, wanted.label)
    kind = np.dtype(label.np_dtype).kind
    if kind not in "biuf" or None in label.shape or repeated:
        raise ConfigError(
            f"Tfds({wanted.name!r}): {wanted.label!r} is {label!r}; a label is a number or a fixed "
            "number of them"
        )
    return jax.ShapeDtypeStruct(label.shape, np.float32 if kind == "f" else np.int32)


def _num_rows(wanted: Wanted, features: Any) -> int:
    """N, the number of rows for objects: one where the set has one box an image."""
    box, repeated = find_feature(features, wanted.boxes)
    if tuple(box.shape) != (4,):
        raise ConfigError(
            f"Tfds({wanted.name!r}): boxes is {wanted.boxes!r}, which is {box!r}; a box has 4 "
            "numbers (y0, x0, y1, x1)"
        )
    return wanted.max_items if repeated else 1


def _num_points(wanted: Wanted, features: Any) -> int:
    """J, the number of points that the features named by `points` have together."""
    shapes = [tuple(find_feature(features, name)[0].shape) for name in wanted.points]
    if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][1] == 2 and shapes[0][0]:
        return shapes[0][0]
    lengths = [shape[0] if shape else 1 for shape in shapes]
    alone = len(shapes) % 2 or any(len(shape) > 1 for shape in shapes) or None in lengths
    if alone or lengths[::2] != lengths[1::2]:
        raise ConfigError(
            f"Tfds({wanted.name!r}): points are features of shapes {shapes}; name one of shape "
            "(J, 2), or x and y in turn, of one or of J points each: "
            "points=('landmarks.nose_x', 'landmarks.nose_y', …)"
        )
    return sum(lengths[::2])
