"""How fast JPEGs of ImageNet's usual size become random crops of 224 pixels, by the feed of a run
and by torchvision's DataLoader, side by side; from a folder, and from tar archives.

    taskset -c 0   python benchmarks/loading_speed.py
    taskset -c 0,1 python benchmarks/loading_speed.py --rounds 7

Photographs of scikit-image, parts of them 500 x 375 pixels, quality 87. A block is an epoch, from
nothing to the last batch of 64, each side with as many threads or worker processes as there are
cores. Ours cuts random windows of 224 x 224 while it decodes (crop_area); "whole" reads, decodes
and resizes whole pictures to 256 x 256, of which the compiled program may cut crops
(jaxcnn.data.augment.crop_resized), here on the same cores ("whole, cropped"). Theirs is ImageFolder
with RandomResizedCrop(224) and ToTensor, which are done by the workers; it gives float32, ours
bytes, which the program makes floats of ("as floats": here, too). Without PyTorch and torchvision
ours alone.
"""

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxcnn.bench.load import Block, watched  # noqa: E402
from jaxcnn.bench.report import doubts, spread  # noqa: E402
from jaxcnn.bench.timing import Timer, alternate, order, timing  # noqa: E402
from jaxcnn.data import augment  # noqa: E402
from jaxcnn.data.dataset import Source  # noqa: E402
from jaxcnn.data.files.class_folder import Folder  # noqa: E402
from jaxcnn.data.files.shards import Shards  # noqa: E402
from jaxcnn.runs.feed import batches, pieces  # noqa: E402

BATCH, CLASSES = 64, 10


def write_pictures(root: Path, count: int) -> int:
    """`count` JPEGs in ten folders, and the same in tar archives of 500; their bytes."""
    from PIL import Image
    from skimage import data

    photographs = [Image.fromarray(f()) for f in (data.astronaut, data.coffee, data.chelsea)]
    random, total = np.random.default_rng(0), 0
    archive: Any = None
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        scale = random.uniform(0.5, 1.0)
        width, height = (int(scale * length) for length in photograph.size)
        left = int(random.integers(photograph.width - width + 1))
        top = int(random.integers(photograph.height - height + 1))
        part = photograph.crop((left, top, left + width, top + height)).resize((500, 375))
        file = io.BytesIO()
        part.save(file, "JPEG", quality=87)
        content, label = file.getvalue(), i % CLASSES
        folder = root / "folder" / f"{label:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:06d}.jpg").write_bytes(content)
        if i % 500 == 0:
            (root / "tar").mkdir(exist_ok=True)
            archive = tarfile.open(root / "tar" / f"{i // 500:04d}.tar", "w")  # noqa: SIM115
        for ending, member in (("jpg", content), ("cls", str(label).encode())):
            info = tarfile.TarInfo(f"{i:06d}.{ending}")
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
        if i % 500 == 499 or i == count - 1:
            archive.close()
        total += len(content)
    return total


@jax.jit
def _crops(key: jax.Array, image: jax.Array) -> jax.Array:
    batch = {"image": image.astype(jnp.float32) / 255}
    return augment.crop_resized(key, batch, size=(224, 224))["image"]


@jax.jit
def _floats(key: jax.Array, image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 255


def feed_epoch(
    source: Source, steps: int, *, then: Callable[[jax.Array, jax.Array], jax.Array] | None = None
) -> float:
    """Seconds of so many epochs of ours, of whose batches `then` makes something."""
    start = time.perf_counter()
    whole = pieces(0, steps * (len(source) // BATCH), size=1, intervals=())
    for (step, _), batch in batches(source, whole, seed=0, batch_size=BATCH):
        if then is not None:
            then(jax.random.key(step), jnp.asarray(batch["image"])).block_until_ready()
    return time.perf_counter() - start


def torch_epochs(folder: Path, workers: int) -> Any:
    """A timer of theirs; None where they are not installed."""
    try:
        import torch  # pyright: ignore[reportMissingImports]

        library = torch.library.Library("torchvision", "DEF")  # of torchvision beside another torch
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision import datasets, transforms  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    torch.set_num_threads(1)
    change = transforms.Compose([transforms.RandomResizedCrop(224), transforms.ToTensor()])
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), change),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
    )

    def epochs(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            for _ in loader:
                pass
        return time.perf_counter() - start

    epochs.library = library  # it ends with its last reference
    return epochs


def watch(kind: str, block: Callable[[], float]) -> Block:
    """A block, timed again where others disturbed it; theirs is the work of other processes."""
    return Block(block()) if kind == "torchvision" else watched(block)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1920, help="pictures")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = name
        root = Path(name)
        size = write_pictures(root, args.count)
        options: dict[str, Any] = {"eval_fraction": 0.0, "memory_mib": 0}
        windows: dict[str, Any] = options | {"image_size": (224, 224), "crop_area": (0.08, 1.0)}
        whole: dict[str, Any] = options | {"image_size": (256, 256)}
        sources = {
            "folder": Folder(str(root / "folder"), **windows).open("train"),
            "tar": Shards(str(root / "tar"), **windows).open("train"),
            "folder, whole": Folder(str(root / "folder"), **whole).open("train"),
        }
        threaded = {
            kind: source.with_workers(cores)  # pyright: ignore[reportAttributeAccessIssue]
            for kind, source in sources.items()
        }
        timers: dict[str, Timer] = {
            kind: partial(feed_epoch, source) for kind, source in threaded.items()
        }
        timers["folder, as floats"] = partial(feed_epoch, threaded["folder"], then=_floats)
        timers["folder, whole, cropped"] = partial(
            feed_epoch, threaded["folder, whole"], then=_crops
        )
        theirs = torch_epochs(root / "folder", cores)
        timers |= {"torchvision": theirs} if theirs else {}
        for timer in timers.values():
            timer(1)  # warms up
        blocks = alternate(timers, steps=1, rounds=args.rounds, watch=watch)
    images = args.count // BATCH * BATCH
    took = {kind: timing(block, batch_size=images) for kind, block in blocks.items()}
    each = size / args.count / 1024
    print(f"{args.count} JPEGs of {each:.0f} KiB, {cores} cores, n = {args.rounds}")
    for kind, each in took.items():
        print(
            f"{kind}: {each['images_per_second']:.0f} images/s, epochs of {images}: "
            f"{spread(each)} ms{doubts(each)}"
        )
    for kind in took if theirs else ():
        if kind != "torchvision":
            print(f"{kind}, against torchvision's: {order(took[kind], took['torchvision'])}")


if __name__ == "__main__":
    main()
