"""The folders of prepared TFDS sets: which there are, what they hold, how one is made."""

import functools
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from jaxcnn.errors import ConfigError, DataError, did_you_mean


def read_info(name: str, data_dir: str) -> Any:
    """TFDS's description of a set: of the prepared one, else, without any split, by the set's own
    code.

    Errors: DataError, ConfigError.
    """
    try:
        _prepared_folder(name, data_dir)
    except DataError as error:
        try:
            return _described(name)
        # TFDS does not know the name, or the set's code needs TensorFlow or another package
        except Exception as reason:
            detail = (
                f". Its description cannot be had before either: {reason}"
                if isinstance(reason, ImportError)
                else ""
            )
            raise DataError(f"{error}{detail}") from reason
    return read_builder(name, data_dir).info


@functools.lru_cache(maxsize=16)
def _described(name: str) -> Any:
    """The description of a set that is not prepared."""
    import tensorflow_datasets as tfds

    with tempfile.TemporaryDirectory() as nowhere:  # where no prepared set of the same name is
        return tfds.builder(name, data_dir=nowhere).info


def read_builder(name: str, data_dir: str) -> Any:
    """The read-only TFDS builder of a prepared set; none of the set's own code is imported.

    Errors: DataError, ConfigError.
    """
    folder = _prepared_folder(name, data_dir)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
        form = builder.info.file_format
        splits = list(builder.info.splits)
    except Exception as error:
        raise DataError(
            f"{folder}: the metadata cannot be read ({type(error).__name__}: {error}); "
            f"{prepare_again(name, data_dir)}"
        ) from error
    if form != tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{folder} is prepared as {form and form.value}, not array_record; move it away, then "
            f"{_command(name, data_dir)}"
        )
    if not splits:
        raise DataError(f"{folder} has no splits; {prepare_again(name, data_dir)}")
    return builder


def data_root(data_dir: str) -> Path:
    """Where prepared sets lie: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _prepared_folder(name: str, data_dir: str) -> Path:
    """The folder of the newest prepared version of "name", "name/config", "name:version" or
    "name/config:version".
    """
    match = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.*]+))?", name)
    if match is None:
        raise ConfigError(
            f"Tfds name is {name!r}; it must be NAME, NAME/CONFIG, NAME:VERSION or "
            "NAME/CONFIG:VERSION"
        )
    root = data_root(data_dir)
    base, config, version = match.groups()
    folder = root / base / config if config else root / base
    found = [path.parent for path in folder.glob(f"{version or '*'}/dataset_info.json")]
    if not found and not config:
        found = [path.parent for path in folder.glob(f"*/{version or '*'}/dataset_info.json")]
        configs = sorted({path.parent.name for path in found})
        if len(configs) > 1:
            raise ConfigError(
                f"Tfds({name!r}) is prepared in several configurations; choose one: "
                f"{', '.join(f'{base}/{c}' for c in configs)}"
            )
    if not found:
        raise DataError(
            f"Tfds({name!r}) is not prepared in {root}{_prepared_there(base, root)}. Prepare it "
            f"once: {_command(name, data_dir)}"
        )
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])


def _prepared_there(base: str, root: Path) -> str:
    names = sorted(
        {
            path.relative_to(root).parts[0]
            for pattern in ("*/*/", "*/*/*/")
            for path in root.glob(pattern + "dataset_info.json")
        }
    )
    near = did_you_mean(base, [name for name in names if name != base]).removesuffix("?")
    return (
        f", where these are: {', '.join(names)}{near}"
        if names
        else ", where no set is (TFDS_DATA_DIR or data_dir says where to look)"
    )


def _command(name: str, data_dir: str) -> str:
    option = f" --data-dir {data_dir}" if data_dir else ""
    return (
        f"`python launch.py prepare {name}{option}` (it needs TensorFlow: pip install "
        "'jaxcnn[prepare]'; training does not)"
    )


def prepare_again(name: str, data_dir: str) -> str:
    """The remedy for a damaged set, for an error's message."""
    return f"remove the set's folder and prepare it again: {_command(name, data_dir)}"
