"""The process around a run: settings that must stand before JAX starts, and the record of what a
result depends on.

Importing this module does not import JAX, so that a launcher can set the environment first.
"""

import ctypes
import gc
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxcnn.runs import fragments
from jaxcnn.runs.records import read_run

Facts = dict[str, Any]  # JSON-able

PACKAGE = Path(__file__).resolve().parents[1]
# of jaxcnn's own code: what is read of it, and the rooms in which no result is made
SOURCES = (".py", ".cc", ".cpp", ".c", ".h")
APART = ("bench", "commands", "experiments", "inspect")
HEAD = "# branch.oid "
MOST_DIFF = 2**20

# XLA's CPU convolutions through YNNPACK run on one thread for some shapes (docs/LOG.md). Other
# versions may not know the flag and would abort.
_CPU_FLAGS = {
    "0.10": "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
}


def cache_folder() -> Path:
    """This user's private folder for things that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxcnn"


def _processors() -> int:
    """How many this process may use."""
    has = hasattr(os, "sched_getaffinity")  # on Linux
    return len(os.sched_getaffinity(0)) if has else os.cpu_count() or 1


def prepare_process(*, recorded: Facts | None = None) -> None:
    """Set what JAX reads when it starts, leaving alone what the user has set; `recorded` is the
    environment of a run to be resumed.

    NPROC fixes the number of threads by which XLA splits work on CPU: results differ in bits
    between numbers, so a run keeps its own.
    """
    recorded = recorded or {}
    collect_rarely()
    kept = keep_memory()
    threads = recorded.get("NPROC") or _processors()
    os.environ.setdefault("NPROC", str(threads))
    if recorded.get("convolution"):  # formulations agree within rounding, not in bits
        os.environ.setdefault("JAXCNN_CONVOLUTION", recorded["convolution"])
    # other versions may not know the flags of a run, and would abort
    same = recorded.get("versions", {}).get("jaxlib") in (None, _version("jaxlib"))
    if "XLA_FLAGS" in recorded and same:
        os.environ.setdefault("XLA_FLAGS", recorded["XLA_FLAGS"])
    else:
        series = ".".join(_version("jaxlib").split(".")[:2])
        os.environ.setdefault("XLA_FLAGS", _CPU_FLAGS.get(series, ""))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        _keep_compiled()
    if kept:  # last, since it imports JAX
        fragments.set_aside_after_compiling()


def _keep_compiled() -> None:
    """Have JAX keep what it has compiled in `cache_folder`."""
    folder = cache_folder() / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return  # a home that cannot be written to costs compilation time, nothing else
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def recorded(run: Path) -> Facts:
    """What a run's run.json says of its process, read without importing JAX.

    Errors: those of `read_run`.
    """
    return dict(read_run(run)["environment"])


def collect_rarely() -> None:
    """Have Python's collector of reference cycles look at every 10,000th new object, unless it is
    set to more.

    Importing JAX and tracing a step make hundreds of thousands of objects that stay; at Python's
    700 the collector walks through them 400 times, a tenth of a second of the start of a small
    experiment.
    """
    youngest, *older = gc.get_threshold()
    gc.set_threshold(max(youngest, 10_000) if youngest else 0, *older)  # 0: turned off by the user


# of glibc's malloc.h: parameter, value, and the same as its variable; -1 is the largest size
_MALLOC = {
    "MALLOC_ARENA_MAX": (-8, 1, 1),
    "MALLOC_MMAP_MAX_": (-4, 0, 0),
    "MALLOC_TRIM_THRESHOLD_": (-1, -1, 2**63 - 1),
}


def keep_memory() -> bool:
    """On a CPU under glibc, have malloc keep the memory of a training step for the next one instead
    of giving it back to the kernel; whether it does.

    A step allocates hundreds of megabytes at once, which glibc takes from the kernel by mmap each
    time: page by page, each cleared, a tenth of the time of a ResNet-18 step (docs/performance.md).
    With one arena that neither maps nor trims, the pages stay. The price is that other programs get
    memory back only when the process ends. Left alone: settings of malloc by the user, other
    libraries for malloc, and machines with an accelerator, whose memory JAX manages itself.
    """
    kept = _keeps_memory()
    if kept:
        for parameter, value, _ in _MALLOC.values():
            ctypes.CDLL(None).mallopt(parameter, value)
    return kept


def _keeps_memory() -> bool:
    theirs = any(name in os.environ for name in ("GLIBC_TUNABLES", "LD_PRELOAD")) or any(
        name.startswith("MALLOC_") for name in os.environ
    )
    accelerator = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    glibc = sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names
    return glibc and not theirs and not accelerator


def tuned(outside: Mapping[str, str]) -> dict[str, str]:
    """The environment `outside` with what `prepare_process` has given this process, as far as
    variables can give it to another program: malloc's settings and XLA's flags.
    """
    malloc = {name: str(value) for name, (_, _, value) in _MALLOC.items()}
    flags = {"XLA_FLAGS": os.environ["XLA_FLAGS"]} if os.environ.get("XLA_FLAGS") else {}
    return {**outside, **(malloc if _keeps_memory() else {}), **flags}


# Of JAX's own settings those that change what is computed; a variable JAX_… sets each.
SETTINGS = (
    "enable_x64",
    "default_matmul_precision",
    "default_prng_impl",
    "threefry_partitionable",
    "random_seed_offset",
    "disable_most_optimizations",
)


def describe() -> Facts:
    """What the bits of a result depend on, and who made it: versions, hardware, flags, commit.
    Starts JAX.
    """
    import jax

    devices = jax.devices()
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {
            name: _version(name) for name in ("jaxcnn", "jax", "jaxlib", "flax", "optax", "numpy")
        },
        "platform": platform.platform(),
        "processor": _processor(),
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
        "num_hosts": jax.process_count(),
        "NPROC": os.environ.get("NPROC"),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "settings": {name: jax.config.values.get(f"jax_{name}") for name in SETTINGS},
        "source": source(),
        **(commit(PACKAGE) if _is_checkout() else {"commit": None, "modified": False}),
    }


def differences(old: Facts, new: Facts) -> list[str]:
    """What has changed between two records that can change the bits of a result."""
    names = (
        "versions",
        "backend",
        "device",
        "num_devices",
        "num_hosts",
        "NPROC",
        "XLA_FLAGS",
        "convolution",
        "processor",
    )
    old = {"num_hosts": 1, **old}  # which runs of before there were several do not say
    found = [
        f"{name}: {old.get(name)} then, {new.get(name)} now"
        for name in names
        if old.get(name) != new.get(name)
    ]
    then, now = old.get("settings"), new.get("settings")  # not of older records
    if then is not None and now is not None:
        found += [
            f"JAX's setting {name}: {then.get(name)} then, {value} now"
            for name, value in now.items()
            if then.get(name) != value
        ]
    then, now = old.get("source"), new["source"]
    if then is not None and then != now:  # runs that were made earlier do not say
        rooms = [room for room in {**then, **now} if then.get(room) != now.get(room)]
        commits = " then, ".join(str(each.get("commit")) for each in (old, new))
        found.append(f"jaxcnn's own code in {', '.join(rooms)} (commit {commits} now)")
    return found


def source() -> dict[str, str]:
    """{room: digest} of jaxcnn's own code, but for the rooms that no result depends on."""
    found = {}
    for room in sorted(path for path in PACKAGE.iterdir() if path.is_dir()):
        files = [path for path in room.rglob("*") if path.suffix in SOURCES]
        if not files or room.name in APART:
            continue
        sha = hashlib.sha256()
        for path in sorted(files):
            content = path.read_bytes()
            sha.update(f"{path.relative_to(room).as_posix()} {len(content)}\n".encode())
            sha.update(content)
        found[room.name] = sha.hexdigest()[:16]
    return found


def commit(folder: Path) -> Facts:
    """{"commit", "modified"} of the git checkout that a folder lies in; None and false where there
    is none.
    """
    text = _git(folder, "status", "--porcelain=v2", "--branch") or ""
    lines = text.splitlines()
    found = [line.removeprefix(HEAD) for line in lines if line.startswith(HEAD)]
    modified = any(not line.startswith("#") for line in lines)
    return {"commit": next(iter(found), None), "modified": modified}


def diff() -> str:
    """What was changed in jaxcnn's checkout since its commit, as `git diff` has it: at most
    MOST_DIFF characters. "" for an installed package.
    """
    return _diff(PACKAGE, ".") if _is_checkout() else ""


def project_diff(folder: Path) -> str:
    """The same of the checkout that a folder lies in, whole, but for jaxcnn's own part of it, which
    `diff` has. "" outside a checkout, and of files that git does not know.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if not top:
        return ""
    inside = PACKAGE.is_relative_to(top)
    own = [f":(top,exclude){PACKAGE.relative_to(top).as_posix()}"] if inside else []
    return _diff(folder, ":/", *own)


def _diff(folder: Path, *paths: str) -> str:
    """`git diff` since the last commit, plain whatever the user's settings, so that `git apply`
    takes it; at most MOST_DIFF characters.
    """
    plain = ("--no-color", "--no-ext-diff", "--no-textconv")
    text = _git(folder, "diff", *plain, "HEAD", "--", *paths) or ""
    text += "\n" if text else ""
    cut = f"… cut here, of {len(text):,} characters\n"
    return text if len(text) <= MOST_DIFF else f"{text[:MOST_DIFF]}\n{cut}"


def _is_checkout() -> bool:
    """Whether jaxcnn is its own checkout, and not a package installed inside somebody else's."""
    return _git(PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is not None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=5,
            check=True,
        ).stdout.strip("\n")  # an empty line of a patch ends in a space
    except (OSError, subprocess.SubprocessError):
        return None
