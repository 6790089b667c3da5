"""Small faults of a source file, one at a time, found in its syntax tree: `mutants(path, source)`.

A fault replaces the text of one node, so that all other lines stay as they are. Left alone are
docstrings and other texts (what a message says is not what the program does), annotations,
decorators and imports.
"""

import ast
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

COMPARED = {
    **{ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="},
    **{ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in"},
}
COMPUTED = {
    **{ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*"},
    **{ast.Pow: "*", ast.BitAnd: "|", ast.BitOr: "&"},
}
OTHER_NAME = {
    **{"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"},
    **{"argmin": "argmax", "argmax": "argmin", "floor": "ceil", "ceil": "floor"},
    **{"any": "all", "all": "any", "sum": "max", "mean": "sum", "zeros": "ones", "ones": "zeros"},
    **{"zeros_like": "ones_like", "ones_like": "zeros_like", "cumsum": "cumprod"},
}

# in any order of arguments the same
COMMUTATIVE = ("min", "max", "minimum", "maximum", "logical_and", "logical_or", "multiply", "add")


class Mutant(NamedTuple):
    """One fault: `path` of the file, `line` of the place, what kind, and the lines old and new."""

    path: str
    line: int
    kind: str
    old: str
    new: str
    source: str  # the whole file with the fault

    def __str__(self) -> str:
        return f"{self.path}:{self.line} [{self.kind}] {self.old} -> {self.new}"


class _Edit(NamedTuple):
    node: ast.AST
    kind: str
    new: str


def mutants(path: str, source: str) -> list[Mutant]:
    """All faults of this kind of the file, in the order of the file, each another text."""
    found = {}
    for edit in _edits(ast.parse(source)):
        mutant = _apply(path, source, edit)
        if mutant.source != source:
            found.setdefault(mutant.source, mutant)
    return list(found.values())


def sample(found: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` of them, in the order of the file; the same for the same file, count and seed."""
    chosen = random.Random(f"{seed}:{found[0].path if found else ''}").sample(
        range(len(found)), min(count, len(found))
    )
    return [found[i] for i in sorted(chosen)]


def replaced(path: str, source: str, old: str, new: str, kind: str) -> Mutant:
    """A fault written by hand: `old` occurs once in `source`, and becomes `new`."""
    if source.count(old) != 1:
        raise ValueError(f"{path}: {old!r} occurs {source.count(old)} times; quote one place")
    line = source[: source.index(old)].count("\n") + 1
    flat = (" ".join(text.split()) for text in (old, new))
    return Mutant(path, line, kind, *flat, source.replace(old, new))


def _apply(path: str, source: str, edit: _Edit) -> Mutant:
    lines = source.encode().splitlines(keepends=True)  # columns of a syntax tree are bytes
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    node = edit.node
    begin = starts[node.lineno - 1] + node.col_offset
    end = starts[node.end_lineno - 1] + node.end_col_offset
    raw = source.encode()
    new = (raw[:begin] + edit.new.encode() + raw[end:]).decode()

    def flat(text: bytes) -> str:
        return " ".join(text.decode().split())

    before, after = raw[starts[node.lineno - 1] : begin], raw[end : starts[node.end_lineno]]
    old_line = flat(raw[starts[node.lineno - 1] : starts[node.end_lineno]])
    return Mutant(
        path, node.lineno, edit.kind, old_line, flat(before + edit.new.encode() + after), new
    )


def _edits(tree: ast.AST) -> Iterator[_Edit]:
    for node in _of_the_program(tree):
        yield from _of_expression(node)
        yield from _of_call(node)
        yield from _of_statement(node)


def _of_the_program(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute: no annotations, decorators, imports, texts or type aliases."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            text = isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Raise)
            # T = TypeVar("T"), Compare = Callable[…]
            alias = (
                isinstance(child, ast.Assign)
                and isinstance(node, ast.Module)
                and any(word in ast.unparse(child) for word in ("TypeVar", "Callable["))
            )
            # any negative number is the length that is left
            rest = (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", "") == "reshape"
                and isinstance(child, ast.UnaryOp)
            )
            # of zip: an assertion, which no program that keeps it can be seen without
            asserted = isinstance(child, ast.keyword) and child.arg == "strict"
            if isinstance(child, ast.AST) and not (text or alias or rest or asserted):
                yield from _of_the_program(child)


def _text(node: ast.AST) -> str:
    return f"({ast.unparse(node)})"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _of_expression(node: ast.AST) -> Iterator[_Edit]:
    match node:
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                values = [ast.unparse(x) for x in (left, *comparators)]
                signs = [_SIGN[type(x)] for x in ops]
                signs[i] = COMPARED[type(op)]
                parts = [values[0], *(f"{s} {v}" for s, v in zip(signs, values[1:], strict=True))]
                yield _Edit(node, "compare", f"({' '.join(parts)})")
        case ast.BinOp(left, op, right) if type(op) in COMPUTED:
            if not any(_is_text(x) or isinstance(x, ast.Dict) for x in (left, right)):
                new = f"({_text(left)} {COMPUTED[type(op)]} {_text(right)})"
                yield _Edit(node, "arithmetic", new)
        case ast.BoolOp(op, values):
            sign = " or " if isinstance(op, ast.And) else " and "
            yield _Edit(node, "and/or", f"({sign.join(_text(x) for x in values)})")
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield _Edit(node, "sign or not dropped", _text(operand))
        case ast.Constant(bool() as value):
            yield _Edit(node, "True/False", str(not value))
        case ast.Constant(int() | float() as value):
            yield _Edit(node, "constant", repr(value + 1))
            if value:
                yield _Edit(node, "constant", repr(value - 1) if value > 0 else "0")
        case ast.IfExp(_, body, orelse):
            yield _Edit(node, "one branch", _text(body))
            yield _Edit(node, "one branch", _text(orelse))


_SIGN = {
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="},
    **{ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"},
}


def _of_call(node: ast.AST) -> Iterator[_Edit]:
    if not isinstance(node, ast.Call):
        return
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if name in OTHER_NAME:
        start = f"{ast.unparse(node.func)[: -len(name)]}{OTHER_NAME[name]}"
        yield _Edit(node.func, "other function", start)
    if name in ("isinstance", "TypeVar", "partial", "namedtuple", *COMMUTATIVE):
        return
    if len(node.args) >= 2 and not any(isinstance(x, ast.Starred) for x in node.args[:2]):
        swapped = ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
        yield _Edit(node, "arguments swapped", ast.unparse(swapped))
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            rest = [*node.keywords[:i], *node.keywords[i + 1 :]]
            without = ast.Call(node.func, node.args, rest)
            yield _Edit(node, f"{keyword.arg}= dropped", ast.unparse(without))


def _of_statement(node: ast.AST) -> Iterator[_Edit]:
    match node:
        case ast.If(test) | ast.While(test):
            yield _Edit(test, "never", "False")
            if isinstance(node, ast.If):
                yield _Edit(test, "always", "True")
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Continue() | ast.Break() | ast.Delete():
            yield _Edit(node, "statement removed", "pass")
        case ast.Expr(ast.Yield() | ast.YieldFrom()):
            yield _Edit(node, "statement removed", "pass")
