"""Strict JAX for every test: traps become errors. One number of threads, so that results do not
depend on the machine's cores. The shapes and dtypes that the functions of ops and metrics promise
are checked in every call.
"""

import gc
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("NPROC", "2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# decoded data sets stay in the workspace
os.environ.setdefault("XDG_CACHE_HOME", str(ROOT / ".cache"))
if "TFDS_DATA_DIR" not in os.environ and (ROOT.parent / "shared" / "tfds").is_dir():
    os.environ["TFDS_DATA_DIR"] = str(ROOT.parent / "shared" / "tfds")

import jax  # noqa: E402 (after the environment is set)
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

from tests.rounding import OPTIONS, options_are_known  # noqa: E402

# before anything of jaxcnn is imported; an int is a float, as PEP 484 has it
jaxtyping.install_import_hook(
    ["jaxcnn.ops", "jaxcnn.metrics"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# What the tests of these folders compare holds for any code that XLA makes, and optimizing it takes
# up to more than half of their time. Commands and faults are compiled as users' are, and of runs
# those in which bits are compared that several processes or many steps make.
QUICKLY_COMPILED = (
    "core",
    "data",
    "docs",
    "inspect",
    "layers",
    "metrics",
    "models",
    "ops",
    "recipes",
)
QUICKLY_COMPILED += ("runs", "tasks", "weights", "test_experiments.py")
# Most programs of tests are small: kernels by way of MLIR, and LLVM in 32 parts, take half their
# time. So compiled, numbers are computed anew for each of their uses, rounded otherwise in some.
AS_USERS = (
    "every_step",
    "hosts",
    "launch",
    "loop",
    "replay",
    "replicas_tasks",
    "saving",
    "sweep",
    "systems",
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before the fixtures, of which those of a module compile, too; what was compiled in the other
    way is forgotten, so that both sides of a comparison of bits are of one.
    """
    quickly = item.path.relative_to(ROOT / "tests").parts[0] in QUICKLY_COMPILED
    quickly = quickly and item.path.stem.removeprefix("test_") not in AS_USERS
    if quickly != _compiled.get("quickly"):
        _compiled.update(quickly=quickly, anew=quickly and options_are_known())
        jax.config.update("jax_disable_most_optimizations", quickly)
        jax.clear_caches()


_compiled: dict[str, bool] = {}


def _quickly(options):
    """XLA's options for a compilation (`jax.jit`'s own win), with those that make it shorter."""
    if _compiled.get("anew"):
        named = dict(options.env_option_overrides)
        options.env_option_overrides = list((OPTIONS | named).items())
    return options


def pytest_configure(config):
    """XLA_FLAGS would hold for all that a process compiles, and for the processes that it starts:
    here they hold for some tests. Without these names in JAX the tests take longer, no more.
    """
    try:
        from jax._src import compiler

        options_of = compiler.get_compile_options
    except (ImportError, AttributeError):
        return
    compiler.get_compile_options = lambda *args, **kwargs: _quickly(options_of(*args, **kwargs))


def pytest_collection_finish(session):
    """Garbage is looked for less often, and not among all that was imported: tracing makes so many
    objects that an eighth of the time of the tests of models went there (116 and 102 s of the
    processor, n = 1, 2026-11-30).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium; the test is skipped where there is none."""
    from tests.browser import Browser

    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()
