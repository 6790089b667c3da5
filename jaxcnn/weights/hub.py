"""Weights that lie in a repository of the Hugging Face hub, as hf://OWNER/NAME[@REVISION][/FILE].

Fetched by the package huggingface_hub: from where HF_ENDPOINT says, into the cache that HF_HOME
says, from that cache alone under HF_HUB_OFFLINE=1. A file is fetched, nothing of it is run: what it
may be is said by `jaxcnn.weights.files`.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from jaxcnn.errors import ConfigError, DataError, DependencyError
from jaxcnn.weights.kinds import ENDINGS

SCHEME = "hf://"
# what a repository calls its weights, the first that is there
USUAL = ("model.safetensors", "pytorch_model.bin")
_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_ADDRESS = re.compile(
    rf"hf://(?P<repo>{_PART}/{_PART})"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[\w.-]+))?"
    r"(?:/(?P<file>[^@]+))?",
    re.ASCII,
)


class Place(NamedTuple):
    """Where weights are: "OWNER/NAME", a branch, tag or commit (None: the main branch), a file
    (None: one of USUAL).
    """

    repo: str
    revision: str | None
    file: str | None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{SCHEME}{self.repo}{revision}" + ("" if self.file is None else f"/{self.file}")


def is_address(source: object) -> bool:
    """Whether weights are to come from the hub."""
    return isinstance(source, str) and source.startswith(SCHEME)


def parse(address: str) -> Place:
    """Errors: ConfigError for what is none, or names a file that is no weights."""
    found = _ADDRESS.fullmatch(address)
    file = found["file"] if found else None
    parts = file.split("/") if file else []
    if found is None or any(part in ("", ".", "..") or "\\" in part for part in parts):
        raise ConfigError(
            f"weights: {address!r} must be hf://OWNER/NAME, with @REVISION and /FILE behind it "
            "where they are meant"
        )
    if file and PurePosixPath(file).suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"weights: {address!r} is no file of weights: these end in {', '.join(ENDINGS)}"
        )
    return Place(found["repo"], found["revision"], file)


def require() -> Any:
    """The package, with its `errors`. Errors: DependencyError."""
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
        import huggingface_hub.errors  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError(
            "the Hugging Face hub is reached through huggingface_hub: pip install 'jaxcnn[hub]'"
        ) from error
    return huggingface_hub


def fetch(address: str) -> tuple[Path, Place]:
    """(the file in the cache, its place with the commit that it is of).

    Errors: DependencyError, ConfigError; DataError where the hub has no such repository, revision
    or file, or where it cannot be reached and the cache does not hold the file.
    """
    place, package = parse(address), require()
    errors = package.errors
    for name in [place.file] if place.file else USUAL:
        try:
            got = package.hf_hub_download(place.repo, name, revision=place.revision)
        except errors.LocalEntryNotFoundError as error:
            raise _refused(
                address, f"is not in the cache, and the hub was not reached ({_first(error)})"
            ) from error
        except errors.EntryNotFoundError:
            continue
        except errors.RepositoryNotFoundError as error:
            raise _refused(
                address, "names no repository that may be read; for a private one: hf auth login"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise _refused(address, f"names a revision that {place.repo} lacks") from error
        except (errors.HFValidationError, errors.FileMetadataError, OSError) as error:
            raise _refused(address, f"cannot be fetched ({_first(error)})") from error
        path = Path(got)
        return path, place._replace(revision=_commit(path), file=name)
    wanted = place.file or " or ".join(USUAL)
    raise _refused(address, f"holds no {wanted}; name the file: {SCHEME}{place.repo}/FILE")


def resolve(address: str) -> str:
    """The address with commit and file, so that it means the same for ever. Errors: see `fetch`."""
    return str(fetch(address)[1])


def local(source: str | Path) -> Path:
    """The file or folder that weights come from; those of the hub are fetched."""
    return fetch(source)[0] if isinstance(source, str) and is_address(source) else Path(source)


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Send a folder to a repository of the hub, which is made if there is none; the address of the
    commit. Errors: DependencyError; DataError where the hub refuses.
    """
    package = require()
    errors = package.errors
    try:
        api = package.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Published by jaxcnn"
        )
    except (errors.HFValidationError, ValueError, OSError) as error:
        raise DataError(
            f"publish: {repo!r} cannot be sent to the hub ({_first(error)}); {folder} is made, and "
            "can be sent by: hf upload"
        ) from error
    return str(done.commit_url)


def _commit(path: Path) -> str:
    """The commit in …/snapshots/COMMIT/FILE, which is how the cache is laid out."""
    parts = path.parts
    return parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]


def _refused(address: str, what: str) -> DataError:
    return DataError(f"weights: {address!r} {what}")


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
