"""Make data ready once: download a TensorFlow Datasets set and write it as array_record files,
which training reads without TensorFlow; or pack a folder of images into tar archives.
"""

import argparse

from jaxcnn.errors import ConfigError

EXAMPLE = "python launch.py prepare cifar10   (it needs TensorFlow: pip install 'jaxcnn[prepare]')"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `prepare`."""
    parser.add_argument(
        "name",
        help="NAME, NAME/CONFIG or NAME:VERSION, as tensorflow_datasets lists them; with --shards "
        "a folder of images, one sub-folder a class",
    )
    parser.add_argument(
        "--data-dir",
        default="",
        help="where prepared sets lie (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--shards",
        default="",
        metavar="OUT",
        help="write the folder NAME as tar archives into a new folder OUT",
    )


def main(args: argparse.Namespace) -> int:
    """Prepare `args.name` under `args.data_dir` unless it is there already, or pack it; 0 when it
    can be read.

    Errors: those of `jaxcnn.data.files.tfds_prepare.prepare` and `jaxcnn.data.files.pack.pack`.
    """
    if args.shards:
        from jaxcnn.data.files.pack import pack

        if args.data_dir:
            raise ConfigError("prepare: --data-dir is for sets of TFDS; leave it out with --shards")
        print(f"read them with data={pack(args.name, args.shards)}")
        return 0
    from jaxcnn.data.files.tfds_prepare import prepare

    builder = prepare(args.name, data_dir=args.data_dir)
    sizes = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
    print(
        f"{args.name} is prepared in {builder.data_path}: {sizes}; features "
        f"{list(builder.info.features)}"
    )
    return 0
