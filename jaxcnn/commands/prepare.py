"""Download a TensorFlow Datasets set and write it as array_record files, which training reads
without TensorFlow.
"""

import argparse

EXAMPLE = "python launch.py prepare cifar10   (it needs TensorFlow: pip install 'jaxcnn[prepare]')"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `prepare`."""
    parser.add_argument(
        "name", help="NAME, NAME/CONFIG or NAME:VERSION, as tensorflow_datasets lists them"
    )
    parser.add_argument(
        "--data-dir",
        default="",
        help="where prepared sets lie (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )


def main(args: argparse.Namespace) -> int:
    """Prepare `args.name` under `args.data_dir` unless it is there already; 0 when it can be read.

    Errors: those of `jaxcnn.data.files.tfds_prepare.prepare`.
    """
    from jaxcnn.data.files.tfds_prepare import prepare

    builder = prepare(args.name, data_dir=args.data_dir)
    sizes = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
    print(
        f"{args.name} is prepared in {builder.data_path}: {sizes}; features "
        f"{list(builder.info.features)}"
    )
    return 0
