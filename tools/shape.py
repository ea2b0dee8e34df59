"""Prints what stands out in the shape of the code: long functions and files, many arguments. It informs, nothing more.

Usage: python tools/shape.py [FOLDER]
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTION, ARGUMENTS, FILE, LUA = 40, 6, 400, 200


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """A line for each function that is longer or takes more than most."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments = len([argument for argument in given if argument.arg not in ("self", "cls")])
        if lines > FUNCTION:
            yield lines, f"{path}:{node.lineno} {node.name}: {lines} lines"
        if arguments > ARGUMENTS:
            yield arguments, f"{path}:{node.lineno} {node.name}: {arguments} arguments"


def main(folder: Path) -> None:
    """Print the longest first."""
    found = [entry for path in folder.rglob("*.py") for entry in functions(path)]
    for pattern, most in (("*.py", FILE), ("*.lua", LUA)):
        for path in folder.rglob(pattern):
            lines = len(path.read_text().splitlines())
            if lines > most:
                found.append((lines, f"{path}: {lines} lines"))
    for _, text in sorted(found, reverse=True):
        print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "src"))
