"""`list`: the experiments that can be named, each with the first paragraph of its docstring."""

import ast
import json
from typing import Any

from jaxcnn.runs import code

EXAMPLE = "python launch.py list"


def add_arguments(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def main(args: Any) -> int:
    rows = []
    for name, path in code.files().items():
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        rows.append(
            {"name": name, "path": str(path), "description": " ".join(doc.split("\n\n")[0].split())}
        )
    if args.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(f"{row['name']:28} {row['description']}")
    return 0
