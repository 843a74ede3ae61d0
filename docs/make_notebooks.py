"""The examples as Jupyter notebooks: the same lines in cells, executed where asked.

    pip install ".[notebooks]"
    python docs/make_notebooks.py ppo vae                        # ppo.ipynb, vae.ipynb
    python docs/make_notebooks.py --execute --out built          # all of them, with their results
    python docs/make_notebooks.py --execute --short ppo          # in some seconds

A module's docstring and its comments between paragraphs become text; classes, functions and
paragraphs become cells. So there is one source, and no notebook to keep up with it. An executed
notebook has what its program prints, and its picture; a check that fails is an error here.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent / "examples"
Cell = tuple[str, str]  # "markdown" or "code", and its text


def cells_of(source: str) -> list[Cell]:
    """The cells of a program, in their order.

    Classes and functions, with their decorators, are cells of their own; so is everything between
    two empty lines. What a paragraph begins with as a comment is text above it.
    """
    lines, body = source.splitlines(), ast.parse(source).body
    found: list[Cell] = []
    if (text := ast.get_docstring(ast.parse(source))) is not None:
        found, body = [("markdown", _as_markdown(text))], body[1:]
    ends = [node.end_lineno or 0 for node in body]
    pieces: list[list[int]] = []  # first and last line of each cell
    for node, above in zip(body, [_docstring_end(source), *ends]):
        first = _first_line(node, lines, above)
        joined = pieces and not any(not line.strip() for line in lines[pieces[-1][1] : first - 1])
        if joined and not isinstance(node, ast.ClassDef | ast.FunctionDef):
            pieces[-1][1] = node.end_lineno or first
        else:
            pieces.append([first, node.end_lineno or first])
    for first, last in pieces:
        found += _with_comment("\n".join(lines[first - 1 : last]))
    return found


def _docstring_end(source: str) -> int:
    """The last line of the module's docstring, 0 without one."""
    tree = ast.parse(source)
    return (tree.body[0].end_lineno or 0) if ast.get_docstring(tree) is not None else 0


def _first_line(node: ast.stmt, lines: list[str], above: int) -> int:
    """Where a statement begins, with its decorators and the comments right above it."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(d.lineno for d in decorators)])
    while first - 1 > above and lines[first - 2].startswith("#"):
        first -= 1
    return first


def _with_comment(code: str) -> list[Cell]:
    """A cell; a comment that it begins with stands above it as text."""
    lines = code.splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = " ".join(line.removeprefix("#").strip() for line in lines[:count])
    rest = "\n".join(lines[count:])
    return [("markdown", text), ("code", rest)] if text else [("code", rest)]


def _as_markdown(docstring: str) -> str:
    """The first line as a heading; indented lines are code already."""
    first, _, rest = docstring.partition("\n")
    return f"# {first.rstrip('.')}\n{rest}"


def notebook_of(script: Path, short: bool = False) -> Any:
    """A notebook without results. With `short`, its program sees `--short` among its arguments."""
    from nbformat import v4

    arguments = [script.name, "--short"] if short else [script.name]
    cells = [("code", f"import sys\n\nsys.argv = {arguments!r}".replace("'", '"'))]
    found = cells_of(script.read_text(encoding="utf-8"))
    makers = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    found[1:1] = cells  # below the title
    # The number of a cell is its name, so that the same program always gives the same file.
    made = [makers[kind](text, id=f"cell-{i}") for i, (kind, text) in enumerate(found)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return v4.new_notebook(cells=made, metadata={"kernelspec": kernel})


def execute(notebook: Any) -> None:
    """Run all cells in a new kernel. Raises CellExecutionError where one fails."""
    from nbclient import NotebookClient

    os.environ.pop("MPLBACKEND", None)  # the kernel's own shows pictures in the notebook
    with tempfile.TemporaryDirectory() as folder:  # the picture's file is left there
        places = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=None, kernel_name="python3", resources=places).execute()


def main() -> None:
    """Make what the command line names."""
    import nbformat

    known = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=known, help=", ".join(known))
    parser.add_argument("--execute", action="store_true", help="with results")
    parser.add_argument("--short", action="store_true", help="in the short form of applications")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="FOLDER", help="where to (here)"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"no example {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        notebook = notebook_of(EXAMPLES / f"{name}.py", options.short)
        if options.execute:
            execute(notebook)
        path = options.out / f"{name}.ipynb"
        nbformat.write(notebook, path)
        print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
