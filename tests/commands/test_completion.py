"""What the shell completes, asked of bash; and pages that are opened in a browser."""

import os
import shlex
import shutil
import subprocess
import sys
import webbrowser

import pytest

from jaxcnn.commands import _arguments, _main
from jaxcnn.errors import DependencyError
from tests.conftest import ROOT

ASK = """
source ./jaxcnn.bash
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_jaxcnn jaxcnn "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def place(tmp_path, capsys, monkeypatch):
    """A folder with the script, an experiment of one's own, and a run."""
    monkeypatch.chdir(tmp_path)
    assert _main.main(["completion", "bash"]) == 0
    (tmp_path / "jaxcnn.bash").write_text(capsys.readouterr().out)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "of_mine.py").write_text("")
    (tmp_path / "experiments" / "_hidden.py").write_text("")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "first").mkdir()
    return tmp_path


def ask(place, *words):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    done = subprocess.run(
        ["bash", "-c", ASK, "ask", "jaxcnn", *words], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_verbs(place):
    assert ask(place, "pre") == {"predict", "prepare"}
    assert ask(place, "") >= set(_main.VERBS)


@pytest.mark.parametrize("verb", ["train", "evaluate", "runs"])
def test_options(place, verb):
    parser = _main.parser_of([verb])
    (verbs,) = [a for a in parser._actions if a.dest == "verb"]
    options = {o for a in verbs.choices[verb]._actions for o in a.option_strings}
    assert {o for o in ask(place, verb, "--") if o.startswith("--")} == {
        o for o in options if o.startswith("--")
    }


def test_values_experiments_and_runs(place):
    assert ask(place, "evaluate", "--split", "t") == {"train", "test"}
    assert {"digits_lenet5", "digits_rotation"} <= ask(place, "train", "digits_")
    assert ask(place, "train", "of_") == {"of_mine"}
    assert ask(place, "train", "_h") == set()
    assert ask(place, "train", "oth") == {"other.py"}
    assert "first" in ask(place, "evaluate", "fi")
    assert "first" in ask(place, "train", "--resume", "fi")


def test_scripts_of_other_shells_know_the_verbs(place, capsys):
    for shell in ("zsh", "fish"):
        assert _main.main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert all(verb in script for verb in _main.VERBS)
        assert "digits_lenet5" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("page", ["README.md", "docs/howto.md"])
def test_the_lines_of_the_documentation_work_in_a_new_home(page, tmp_path):
    """Where none of the folders is there that the shells look into."""
    lines = [line.strip() for line in (ROOT / page).read_text().splitlines()]
    chosen = [line for line in lines if line.startswith(("mkdir -p ~", "jaxcnn completion "))]
    launch = shlex.join([sys.executable, str(ROOT / "launch.py")])
    code = "\n".join(["set -e", f'jaxcnn() {{ {launch} "$@"; }}', *chosen])
    home = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", code], env=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    places = [line.partition(" > ~/")[2].split()[0] for line in chosen if " > " in line]
    assert len(places) == {"README.md": 1, "docs/howto.md": 3}[page]
    assert all("digits_lenet5" in (tmp_path / place).read_text() for place in places)


def test_without_shtab_the_remedy_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert _main.main(["completion", "bash"]) == DependencyError.exit_code
    assert "pip install 'jaxcnn[completion]'" in capsys.readouterr().err


def test_a_page_is_opened(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(webbrowser, "open", lambda address: seen.append(address) or True)
    _arguments.open_page(tmp_path / "a page.html")
    _arguments.open_page("http://127.0.0.1:8000/")
    assert seen == [f"file://{tmp_path}/a%20page.html", "http://127.0.0.1:8000/"]
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    _arguments.open_page(tmp_path / "page.html")
    assert f"no browser was found; open file://{tmp_path}/page.html" in capsys.readouterr().err


def test_verbs_open_their_page(tmp_path, monkeypatch, capsys):
    from jaxcnn.runs.report import write
    from tests.tiny import fit, tiny

    seen = []
    monkeypatch.setattr(webbrowser, "open", lambda address: seen.append(address) or True)
    monkeypatch.setattr(write, "write_report", lambda run, **options: [])
    fit(tiny(steps=2), tmp_path / "run")
    assert _main.main(["report", str(tmp_path / "run"), "--open"]) == 0
    assert seen == [(tmp_path / "run" / "report.html").as_uri()]
    assert _main.main(["compare", "a", "b", "--open"]) == 2
    assert "give it, too" in capsys.readouterr().err


@pytest.mark.parametrize("verb, runs", [("report", 1), ("compare", 2)])
def test_a_page_in_the_place_of_a_folder_is_refused(tmp_path, capsys, verb, runs):
    from tests.tiny import fit, tiny

    fit(tiny(steps=2), tmp_path / "run")
    arguments = [verb, *[str(tmp_path / "run")] * runs, "--output", str(tmp_path)]
    assert _main.main(arguments) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err
