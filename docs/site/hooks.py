"""What mkdocs does besides: pages from elsewhere in the repository, examples, the reference, links.

Pages link as the repository is laid out, so that they can be read there. On the site a link to a
Python file of `docs/examples` goes to a page that shows it, one to a page outside of `docs/` goes
to its copy, and one to anything else (results, sources) becomes plain text.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path

from reference import reference_pages

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {
    "README.md": "start.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "benchmarks.md",
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def sources() -> dict[str, str]:
    """Where each page comes from: its place in the repository to its place on the site."""
    pages = dict(OUTSIDE)
    for page in sorted(ROOT.glob("gpubp/**/README.md")):
        place = page.relative_to(ROOT).as_posix()
        pages[place] = "source/" + posixpath.dirname(place).replace("/", ".") + ".md"
    for page in sorted((ROOT / "docs").rglob("*.md")):
        place = page.relative_to(ROOT / "docs").as_posix()
        pages[f"docs/{place}"] = place
    for program in sorted((ROOT / "docs" / "examples").glob("*.py")):
        pages[f"docs/examples/{program.name}"] = f"examples/{program.stem}.md"
    return pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not stand in `docs/`."""
    for place, page in sources().items():
        if place.endswith(".py"):
            _add(files, config, page, example_page(ROOT / place))
        elif not place.startswith("docs/"):
            _add(files, config, page, (ROOT / place).read_text(encoding="utf-8"))
    for page, text in reference_pages().items():
        _add(files, config, page, text)
    return files


def _add(files: Files, config: MkDocsConfig, page: str, text: str) -> None:
    files.append(File.generated(config, page, content=text))


def example_page(program: Path) -> str:
    """A program of `docs/examples` as a page: what it says of itself, its picture, its text."""
    text = program.read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(text)) or ""
    picture = ROOT / "docs" / "images" / f"{program.stem}.png"
    drawn = f"![What {program.name} draws](../images/{picture.name})\n\n"
    shown = drawn if picture.exists() else ""
    title, _, rest = said.partition("\n")
    return f"# {program.name}\n\n{title}\n{rest}\n\n{shown}```python\n{text}```\n"


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Mend the links of a page, but in code."""
    pages = sources()
    here = page.file.src_uri
    place = next((place for place, known in pages.items() if known == here), None)
    if place is None:  # of the reference
        return markdown
    pieces = FENCED.split(markdown)
    return "".join(
        piece if number % 2 else LINK.sub(lambda link: mended(link, place, here, pages), piece)
        for number, piece in enumerate(pieces)
    )


def mended(link: re.Match[str], place: str, here: str, pages: dict[str, str]) -> str:
    """A link of the page from `place` in the repository, as it is right on the page `here`."""
    picture, text, target, part = link[1], link[2], link[3], link[4] or ""
    if re.match(r"[a-z]+:", target):
        return link[0]
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
    if not (ROOT / meant).exists():
        return link[0]  # mkdocs will complain, and should
    if meant in pages:
        found = pages[meant]
    elif meant.startswith("docs/") and (ROOT / meant).is_file():
        found = meant.removeprefix("docs/")
    else:
        return text
    relative = posixpath.relpath(found, posixpath.dirname(here) or ".")
    return f"{picture}[{text}]({relative}{part})"
