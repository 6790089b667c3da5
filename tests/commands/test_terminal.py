"""The command line in terminals that are closed, full, ascii; Ctrl-C before training begins."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FULL = Path("/dev/full")
CLEAN = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}


def shell(line, **environment):
    """(exit code, stdout, stderr) of `jaxcnn` in a shell's line, where $jaxcnn is the program."""
    done = subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        cwd=ROOT,
        timeout=60,
        env=CLEAN | {"jaxcnn": f"{sys.executable} {ROOT / 'launch.py'}"} | environment,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize("verb", ["list", "train --help", "--version"])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_that_cannot_be_written_is_one_message(verb, buffered):
    if verb != "list" and buffered:
        pytest.skip("argparse drops what it cannot print itself")
    code, _, err = shell(f"$jaxcnn {verb} >/dev/full", PYTHONUNBUFFERED=buffered)
    assert code == 6
    assert err.startswith("error: the output cannot be written (No space left on device)")
    assert err.count("\n") == 1


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", "<&- 2>&-", "2>&- >&-", "2>&- <&- >&-"])
def test_an_error_keeps_its_exit_code_where_nobody_can_be_told(streams):
    assert shell(f"$jaxcnn nosuch {streams}") == (2, "", "")


@pytest.mark.parametrize("streams", [">&-", "<&-", "2>&-", "| head -1"])
def test_a_closed_stream_is_no_error(streams):
    code, out, err = shell(f"$jaxcnn list {streams}")
    assert (code, err) == (0, "")
    assert bool(out) is (streams != ">&-")


def test_what_an_ascii_terminal_lacks_is_escaped():
    code, _, err = shell("$jaxcnn train süß", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert code == 2
    assert r"s\xfc\xdf" in err
    body = "from jaxcnn.runs.terminal import prepare_streams as p; p(); print('\\xb1 \\udcff')"
    environment = CLEAN | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", body], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    assert done.stdout == b"\\xb1 \\udcff\n"


@pytest.mark.parametrize(
    "moment, number, message",
    [
        ("jaxlib", "SIGINT", "interrupted"),
        ("jax", "SIGINT", "interrupted"),
        ("flax.linen", "SIGINT", "interrupted"),
        ("jax", "SIGTERM", "interrupted by SIGTERM"),
        ("jax", "SIGHUP", "interrupted by SIGHUP"),
        ("jax", "SIGUSR2", "interrupted by SIGUSR2"),
    ],
)
def test_a_signal_while_libraries_are_imported_ends_at_once(moment, number, message):
    """The program sends it to itself, as the import begins."""
    body = f"""
import os, signal, sys, threading, time
signal.signal(signal.{number}, signal.SIG_DFL)  # tests that run under nohup ignore SIGHUP
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["jaxcnn", "models"]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {moment!r}:
            threading.Timer(0.02, os.kill, (os.getpid(), signal.{number})).start()
sys.meta_path.insert(0, Finder())
from jaxcnn.commands._main import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", body], cwd=ROOT, capture_output=True, timeout=60, env=CLEAN
    )
    assert done.returncode == 128 + getattr(signal, number)
    assert done.stderr.decode() == message + "\n"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_while_python_ends_changes_no_exit_code(number):
    """What was to be done is done."""
    body = f"""
import atexit, os, signal, sys
signal.signal(signal.{number}, signal.SIG_DFL)
atexit.register(os.kill, os.getpid(), signal.{number})
sys.argv = ["jaxcnn", "list"]
from jaxcnn.commands._main import main
sys.exit(main())
"""
    line = [sys.executable, "-c", body]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, timeout=60, env=CLEAN, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "digits_lenet5" in done.stdout


def test_control_characters_are_shown_not_obeyed():
    """In a real terminal (a pty); in a pipe they are as they are."""
    name = "a\x1b]0;evil\x07\x9b2Jb"
    body = "import sys; from jaxcnn.runs.terminal import prepare_streams as p; p();"
    body += f"print({name!r}, 'ü'); print({name!r}, file=sys.stderr)"
    main, end = os.openpty()
    with subprocess.Popen([sys.executable, "-c", body], stdout=end, stderr=end, cwd=ROOT) as child:
        child.wait(timeout=60)
    os.close(end)
    shown = os.read(main, 4096)
    os.close(main)
    assert not any(control in shown for control in (b"\x1b", b"\x07", b"\xc2\x9b"))
    assert shown.count(rb"a\x1b]0;evil\x07\x9b2Jb") == 2
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, cwd=ROOT, check=True)
    assert done.stdout.decode().startswith(name)
