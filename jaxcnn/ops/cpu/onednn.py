"""Convolutions on CPU by the oneDNN library, called from XLA: the optional extra `jaxcnn[onednn]`,
used by `jaxcnn.ops.convolution`.

The extra brings oneDNN's library and headers. The calls (`onednn.cc` and its headers beside this
file) are compiled by g++ when first used, in some seconds, and kept in a private directory,
`$XDG_CACHE_HOME/jaxcnn/onednn` (`~/.cache/…`), under a name that changes with the sources, jaxlib,
oneDNN and the compiler. Where anything is missing, `available` says so and convolutions stay pure
JAX: nothing needs the library. The same calls hold the max-pooling of `jaxcnn.ops.pooling`.

float32, one or two spatial dimensions, and any stride, padding, dilation and groups that oneDNN has
an optimized implementation for.
Source: the oneDNN developer guide, "Convolution" and "Primitive attributes: scratchpad",
https://uxlfoundation.github.io/oneDNN.
"""

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import DependencyError
from jaxcnn.ops.geometry import ConvolutionGeometry, WindowGeometry

INSTALL = "pip install 'jaxcnn[onednn]'"
SOURCE = Path(__file__).with_name("onednn.cc")
HEADERS = tuple(
    SOURCE.with_name(f"{name}.h")
    for name in ("convolution", "few_channels", "lanes", "pooling", "team", "winograd")
)
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fopenmp", "-fvisibility-inlines-hidden")
ROLES = ("y", "x", "w")  # the results, in the order of `Role` in convolution.h
CALLS = (
    *(f"jaxcnn_onednn_{role}" for role in ROLES),
    "jaxcnn_pool_max",
    "jaxcnn_pool_take",
    "jaxcnn_pool_put",
)


class _Unavailable(Exception):
    """Why the library cannot be used; `expected` where nobody asked for it, so that nothing needs
    to be said.
    """

    def __init__(self, reason: str, *, expected: bool = False):
        super().__init__(reason)
        self.expected = expected


# ---- finding, building, loading ------------------------------------------------------------------


def available(*, warn: bool = False) -> bool:
    """True where the native convolutions can be used, building them if need be.

    A broken installation (the wheels without a compiler, say) is told once as a RuntimeWarning;
    with `warn`, a missing one too.
    """
    problem = _problem()
    if problem is not None and (warn or not problem.expected):
        _tell(f"{problem} Convolutions are computed without oneDNN.")
    return problem is None


def require() -> None:
    """Raise DependencyError, with what to do, where the native convolutions cannot be used."""
    problem = _problem()
    if problem is not None:
        raise DependencyError(f"{problem} Or choose another formulation ('fast').")


@functools.cache
def _tell(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


@functools.cache
def _problem() -> _Unavailable | None:
    try:
        _load()
    except _Unavailable as problem:
        return problem
    return None


@functools.cache
def _load() -> ctypes.CDLL:
    """The compiled calls, registered with XLA."""
    library_path, include_path = _find_onednn()
    try:
        path = _build(library_path, include_path)
    except OSError as error:  # a full disk, a compiler that cannot be started
        raise _Unavailable(f"oneDNN's calls cannot be compiled ({error}).") from error
    try:
        with _sleeping_threads():
            library = ctypes.CDLL(str(path))
    except OSError as error:
        raise _Unavailable(
            f"The compiled oneDNN calls {path} cannot be loaded ({error}); delete the file to "
            "build it anew."
        ) from error
    for name in CALLS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    library.jaxcnn_onednn_implementation.restype = ctypes.c_char_p
    return library


@contextlib.contextmanager
def _sleeping_threads():
    """OpenMP's threads sleep between two calls; spinning, as is their habit, they would take the
    cores from XLA's own threads and from other programs. libgomp reads the variable when it is
    loaded; what the user has set stays.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        yield
    finally:
        os.environ.pop("OMP_WAIT_POLICY", None)


def _find_onednn() -> tuple[Path, Path]:
    """The shared library and the folder of headers of the installed wheels, wherever the installer
    put them.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise _Unavailable(
            f"oneDNN wheels exist for Linux on x86-64, not for {sys.platform} on "
            f"{platform.machine()}.",
            expected=True,
        )
    wanted = {
        "onednn-cpu-gomp": "libdnnl.so.3",
        "onednn-devel-cpu-gomp": "include/oneapi/dnnl/dnnl.hpp",
    }
    found = []
    for package, ending in wanted.items():
        try:
            files = metadata.files(package) or ()
        except metadata.PackageNotFoundError:
            raise _Unavailable(
                f"The package {package} is not installed; {INSTALL} brings it.", expected=True
            ) from None
        paths = [Path(str(file.locate())).resolve() for file in files if str(file).endswith(ending)]
        if not paths or not paths[0].exists():
            raise _Unavailable(
                f"The package {package} is installed but its {ending} is missing; reinstall it: "
                f"{INSTALL}."
            )
        found.append(paths[0])
    library, headers = (metadata.version(package) for package in wanted)
    if library != headers:
        raise _Unavailable(
            f"oneDNN's library is of version {library} and its headers are of {headers}, so that "
            f"calls would be misread; reinstall both: {INSTALL}."
        )
    return found[0], found[1].parents[2]


def _build(library: Path, include: Path) -> Path:
    """The shared object with the calls, compiled unless a file of the same ingredients exists."""
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        raise _Unavailable(
            "The C++ compiler g++ (or what CXX names) is missing: oneDNN's calls are compiled at "
            "first use; install g++."
        )
    directory = _private_directory()
    command = [compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", f"-I{include}", str(SOURCE)]
    linking = [f"-L{library.parent}", f"-l:{library.name}", f"-Wl,-rpath,{library.parent}"]
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=False
    ).stdout
    library_stat = library.stat()
    ingredients = [
        *command,
        *linking,
        version,
        metadata.version("jaxlib"),
        str((library_stat.st_size, library_stat.st_mtime_ns)),
    ]
    sources = b"\0".join(path.read_bytes() for path in (SOURCE, *HEADERS))
    digest = hashlib.sha256(sources + "\0".join(ingredients).encode()).hexdigest()[:32]
    target = directory / f"{digest}.so"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(
        dir=directory
    ) as scratch:  # beside the target, so that the last step is one rename
        built = Path(scratch) / target.name
        done = subprocess.run(
            [*command, "-o", str(built), *linking], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise _Unavailable(
                f"{compiler} could not compile oneDNN's calls ({SOURCE}): "
                f"{done.stderr.strip()[:1000]}"
            )
        built.replace(target)
    return target


def _private_directory() -> Path:
    """A folder that nobody else can write to: what lies there is loaded as code."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = base / "jaxcnn" / "onednn"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise _Unavailable(
            f"The cache folder {directory} cannot be used ({error}); set XDG_CACHE_HOME to a "
            "folder of your own."
        ) from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not os.access(directory, os.W_OK):
        raise _Unavailable(
            f"The cache folder {directory} must be yours, and writable for you alone: chmod 700, "
            "or set XDG_CACHE_HOME."
        )
    return directory


# ---- what it can do ------------------------------------------------------------------------------


def supports(geometry: ConvolutionGeometry, x, w) -> bool:
    """True where oneDNN has an optimized implementation of y(x, w) and both gradients; x [B,
    *spatial, C], w [*window, C / groups, F].
    """
    within = (
        len(geometry.window) in (1, 2)
        and x.dtype == jnp.float32
        and all(n >= 0 for pair in geometry.padding for n in pair)
    )
    return within and all(implementation(geometry, role, x.shape, w.shape[-1]) for role in ROLES)


@functools.lru_cache(maxsize=4096)
def implementation(
    geometry: ConvolutionGeometry, role: str, x_shape: tuple[int, ...], features: int
) -> str:
    """The name of oneDNN's implementation of y(x, w), x(y, w) or w(x, y), by `role`; empty where it
    has only its slow reference.
    """
    plane = _plane(geometry)
    padding = [n for pair in plane.padding for n in pair]
    sizes = [
        x_shape[0],
        *plane.spatial,
        x_shape[-1],
        *plane.output_spatial(),
        features,
        *plane.window,
    ]
    numbers = [
        ROLES.index(role),
        0,
        *sizes,
        *plane.strides,
        *padding,
        *plane.dilation,
        plane.groups,
    ]
    name = _load().jaxcnn_onednn_implementation((ctypes.c_int64 * len(numbers))(*numbers)).decode()
    return "" if "ref" in name.split(":")[0] else name


# ---- the calls -----------------------------------------------------------------------------------


def convolve(role: str, geometry: ConvolutionGeometry, a, b):
    """y(x, w), x(y, w) or w(x, y), by `role`, on one device; float32, channels last; operands may
    have a leading replica axis.
    """
    _load()
    shape = geometry.result_shape(role, a.shape, b.shape)
    plane = _plane(geometry)
    # 1-D as an image of one row; axes count from the end, where a replica axis does not shift them
    if plane is not geometry:
        b_axis = -3 if role == "w" else -4  # [B, 1, W, C] or [1, window, C / groups, features]
        return convolve(role, plane, jnp.expand_dims(a, -3), jnp.expand_dims(b, b_axis)).reshape(
            shape
        )
    attributes = {
        "strides": plane.strides,
        "padding": [n for pair in plane.padding for n in pair],
        "dilation": plane.dilation,
    }
    call = jax.ffi.ffi_call(f"jaxcnn_onednn_{role}", jax.ShapeDtypeStruct(shape, a.dtype))
    return call(
        a,
        b,
        groups=np.int64(plane.groups),
        **{name: np.array(value, np.int64) for name, value in attributes.items()},
    )


def _plane(geometry: ConvolutionGeometry) -> ConvolutionGeometry:
    """The same convolution with two spatial axes."""
    if len(geometry.window) == 2:
        return geometry
    return dataclasses.replace(
        geometry,
        spatial=(1, *geometry.spatial),
        window=(1, *geometry.window),
        strides=(1, *geometry.strides),
        padding=((0, 0), *geometry.padding),
        dilation=(1, *geometry.dilation),
    )


def pool(call: str, geometry: WindowGeometry, *operands):
    """Max-pooling and the linear maps of its derivative, on one device; no dilation.

    "max": x float32 [B, H, W, C] -> y [B, H', W', C] and first uint8 [B, H', W', C]; "take": x,
    first -> y; "put": y, first -> x.
    """
    _load()
    batch, channels = operands[0].shape[0], operands[0].shape[-1]
    y = jax.ShapeDtypeStruct((batch, *geometry.output_spatial(), channels), jnp.float32)
    x = jax.ShapeDtypeStruct((batch, *geometry.spatial, channels), jnp.float32)
    results = {"max": (y, jax.ShapeDtypeStruct(y.shape, jnp.uint8)), "take": y, "put": x}
    attributes = {
        "window": geometry.window,
        "strides": geometry.strides,
        "before": [low for low, _ in geometry.padding],
    }
    arrays = {name: np.array(value, np.int64) for name, value in attributes.items()}
    return jax.ffi.ffi_call(f"jaxcnn_pool_{call}", results[call])(*operands, **arrays)
