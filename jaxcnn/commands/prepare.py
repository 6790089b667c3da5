"""Download a TensorFlow Datasets set and write it as array_record files, which training reads
without TensorFlow.
"""

import argparse
import importlib.util
from typing import Any

from jaxcnn.errors import (
    ConfigError,
    DataError,
    DependencyError,
    JaxcnnError,
    ResourceError,
    did_you_mean,
)

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

    Errors: ConfigError for an unknown set, DependencyError without TensorFlow, DataError where the
    download or the writing fails.
    """
    from jaxcnn.data.files.tfds_folder import read_builder

    builder = _prepared(args.name, args.data_dir)
    if builder is None:
        _check_name(args.name)
        _download_and_prepare(args.name, args.data_dir)
        builder = read_builder(args.name, args.data_dir)
    sizes = ", ".join(f"{split} {info.num_examples}" for split, info in builder.info.splits.items())
    print(
        f"{args.name} is prepared in {builder.data_path}: {sizes}; features "
        f"{list(builder.info.features)}"
    )
    return 0


def _prepared(name: str, data_dir: str) -> Any:
    """The builder of a set that can be read already, or None."""
    from jaxcnn.data.files.tfds_folder import read_builder

    try:
        return read_builder(name, data_dir)
    except ConfigError:
        raise  # a name that no preparing will mend
    except DataError:
        return None


def _check_name(name: str) -> None:
    import tensorflow_datasets as tfds

    base = name.partition(":")[0].partition("/")[0]
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        near = (
            did_you_mean(base, known)
            or f"; see the {len(known)} of tensorflow_datasets.list_builders()"
        )
        raise ConfigError(f"tensorflow_datasets has no set {base!r}{near}")


def _download_and_prepare(name: str, data_dir: str) -> None:
    if (
        importlib.util.find_spec("tensorflow") is None
    ):  # before anything is downloaded: most sets encode their examples with it
        raise DependencyError(
            f"preparing {name!r} needs TensorFlow (training does not): pip install "
            "'jaxcnn[prepare]'"
        )
    import tensorflow_datasets as tfds

    from jaxcnn.data.files.tfds_folder import data_root

    root = data_root(data_dir)
    try:
        builder = tfds.builder(name, data_dir=str(root), file_format="array_record")
        builder.download_and_prepare()
    except JaxcnnError:
        raise
    except ImportError as error:
        raise DependencyError(
            f"preparing {name!r} needs a package that is not installed: {error}"
        ) from error
    except PermissionError as error:
        raise ResourceError(
            f"preparing {name!r}: {root} cannot be written ({error}); choose another --data-dir"
        ) from error
    except Exception as error:  # whatever a set's own code, or the network, raises
        raise DataError(
            f"preparing {name!r} in {root} failed ({type(error).__name__}: {error}). Nothing "
            "half-written is kept as whole. "
            "Without a network, put the files that the set downloads into "
            f"{root / 'downloads' / 'manual'}, as its page at "
            "https://www.tensorflow.org/datasets/catalog says, or copy a folder prepared elsewhere"
        ) from error
