"""`completion`: a script for the shell, with which it completes `jaxcnn`'s verbs, options,
experiments, runs and files. Made by the package shtab from the parsers of the verbs.
"""

import argparse
import shlex
from typing import Any

from jaxcnn.errors import DependencyError
from jaxcnn.runs import code

SHELLS = ("bash", "zsh", "fish")
PLACE = "~/.local/share/bash-completion/completions"
EXAMPLE = f"mkdir -p {PLACE} && jaxcnn completion bash > {PLACE}/jaxcnn"
FOLDERS = ("RUN", "FOLDER")  # metavars of what is a folder, of what is a file
FILES = ("FILE", "IMAGE", "NAME=FILE.npy")

# {names}: those that come with jaxcnn; those in ./experiments are looked up when they are asked for
BASH = """
_jaxcnn_experiments() {{
  compgen -W {names} -- "$1"
  for file in experiments/[!_]*.py; do
    [ -e "$file" ] && compgen -W "$(basename "$file" .py)" -- "$1"
  done
  compgen -f -X '!*.py' -- "$1"
  compgen -d -- "$1"
}}
"""
ZSH = """
_jaxcnn_experiments() {{
  compadd -- {words} experiments/[^_]*.py(N:t:r)
  _files -g '*.py'
}}
"""
FISH = """
function _jaxcnn_experiments
  printf '%s\\n' {words}
  for file in experiments/*.py
    string match -qv '_*' (basename $file); and basename $file .py
  end
  __fish_complete_path (commandline -ct)
end
"""


def add_arguments(parser: Any) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def main(args: Any) -> int:
    """Print the script. Errors: DependencyError without shtab."""
    try:
        import shtab  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError(
            "completion needs shtab, which makes the scripts: pip install 'jaxcnn[completion]'"
        ) from error
    from jaxcnn.commands._main import VERBS, parser_of

    parser = parser_of(VERBS)
    names = sorted(code.files())
    words = shlex.join(names)
    experiments = {
        "bash": "_jaxcnn_experiments",
        "zsh": "_jaxcnn_experiments",
        "fish": "(_jaxcnn_experiments)",
        "preamble": {
            "bash": BASH.format(names=shlex.quote(" ".join(names))),
            "zsh": ZSH.format(words=words),
            "fish": FISH.format(words=words),
        },
    }
    for action in _actions(parser):
        name = action.metavar if isinstance(action.metavar, str) else ""
        if name.startswith("EXPERIMENT"):
            action.complete = experiments  # pyright: ignore[reportAttributeAccessIssue]
        elif name in FOLDERS or action.dest in ("run_dir", "resume", "start"):
            action.complete = shtab.DIRECTORY  # pyright: ignore[reportAttributeAccessIssue]
        elif name in FILES or (name == "" and action.dest == "output"):
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """All arguments, those of the verbs too."""
    found = list(parser._actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [one for child in action.choices.values() for one in _actions(child)]
    return found
