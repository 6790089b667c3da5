"""Preparing a TensorFlow Datasets set once, for reading without TensorFlow ever after."""

import importlib.util
from typing import Any

from jaxcnn.data.files.tfds_folder import data_root, read_builder
from jaxcnn.errors import (
    ConfigError,
    DataError,
    DependencyError,
    JaxcnnError,
    ResourceError,
    did_you_mean,
)


def prepare(name: str, *, data_dir: str = "") -> Any:
    """The builder of the set `name` in `data_dir` (default: $TFDS_DATA_DIR, else
    ~/tensorflow_datasets), which is prepared there unless it can be read already.

    Errors: ConfigError for an unknown set, DependencyError without TensorFlow, DataError where the
    download or the writing fails.
    """
    builder = _prepared(name, data_dir)
    if builder is None:
        _check_name(name)
        _download_and_prepare(name, data_dir)
        builder = read_builder(name, data_dir)
    return builder


def _prepared(name: str, data_dir: str) -> Any:
    """The builder of a set that can be read already, or None."""
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
    # before anything is downloaded: most sets encode their examples with it
    if importlib.util.find_spec("tensorflow") is None:
        raise DependencyError(
            f"preparing {name!r} needs TensorFlow (training does not): pip install "
            "'jaxcnn[prepare]'"
        )
    import tensorflow_datasets as tfds

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
