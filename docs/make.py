"""Build the documentation: `make docs`, or `python docs/make.py [--no-run] [--to FOLDER]`.

It lays the pages out in FOLDER/source (docs/_build by default), with the README as front page and the
notebooks executed, and lets Sphinx write FOLDER/html. Warnings are errors, and nothing is downloaded. Runs
are kept in docs/_build/executed until a cell or nadkit changes; `--no-run` leaves the lessons' outputs out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from launch import BLOCK, Launch
from running import drawn, executed, notebook_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CACHE = DOCS / "_build" / "executed"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~)", re.S | re.M)
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "notebooks": "tutorials/index.md",
}
EXECUTED = ("gallery.md", "how-to/your-own-network.md")  # pages with their outputs
FILES = ("LICENSE", "NOTICE", "CITATION.cff")

FRONT = """
```{{toctree}}
:hidden:
:caption: Learn

tutorials/index
gallery
{workshop}```
```{{toctree}}
:hidden:
:caption: Do

how-to/index
```
```{{toctree}}
:hidden:
:caption: Understand

explanation/index
vocabulary
results
```
```{{toctree}}
:hidden:
:caption: Look up

reference/index
project/changelog
project/contributing
```
"""


def notebooks() -> dict[str, str]:
    """Return the lessons in order: path from the root → title."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        first = nbformat.read(path, as_version=4).cells[0].source
        found[f"notebooks/{path.name}"] = first.splitlines()[0].removeprefix("# ")
    return found


def page_of(target: Path) -> str | None:
    """Return where a file of the project stands among the pages' sources, or None if it does not."""
    path = target.relative_to(ROOT).as_posix()
    if path in MOVED:
        return MOVED[path]
    if path in FILES:
        return f"project/{path}"
    if path.removeprefix("docs/") in EXECUTED:
        return path.removeprefix("docs/").replace(".md", ".ipynb")
    if path.startswith("docs/") and target.is_file():
        return path.removeprefix("docs/")
    if path.startswith("notebooks/"):
        return path.replace("notebooks/", "tutorials/", 1)
    return None


def relinked(text: str, origin: str, here: str, launch: Launch) -> str:
    """Return Markdown whose links inside the project lead to pages.

    `origin` is the file that the text was written in, `here` the page that it is on. What is no page is
    linked to in the repository; without one, only the words stay.
    """

    def moved(found: re.Match[str]) -> str:
        mark, words, address = found.groups()
        if re.match(r"[a-z]+:|#", address):
            return found[0]
        path, _, anchor = address.partition("#")
        target = Path(os.path.normpath(ROOT / Path(origin).parent / path))
        if not target.exists():
            return found[0]  # Sphinx says so
        page = page_of(target)
        if page is None:
            return (
                f"[{words}]({launch.file(target.relative_to(ROOT).as_posix())})"
                if launch.repository
                else words
            )
        away = os.path.relpath(page, Path(here).parent)
        return f"{mark}[{words}]({away}{'#' * bool(anchor)}{anchor})"

    parts = CODE.split(text)
    return "".join(part if at % 2 else LINK.sub(moved, part) for at, part in enumerate(parts))


def numbered(path: str, title: str) -> str:
    """Return a lesson's title after its number, by which lessons name each other."""
    return f"{Path(path).name[:2]} · {title}"


def tree_of(names: list[str]) -> str:
    """Return what lists pages in the navigation."""
    return "\n```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"


def write(path: Path, text: str) -> None:
    """Write a page, unless it is there: Sphinx reads again what is newer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def lay_out(source: Path, launch: Launch, *, run: bool) -> None:
    """Write the sources of all pages; `run` executes the lessons. EXECUTED pages always are."""
    lessons = notebooks()
    there: set[Path] = set()

    def page(name: str, text: str) -> None:
        write(source / name, text)
        there.add(source / name)

    def file(path: Path, name: str) -> None:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if not (source / name).exists() or (source / name).read_bytes() != path.read_bytes():
            shutil.copyfile(path, source / name)
        there.add(source / name)

    front = BLOCK.sub(launch.readme(), (ROOT / "README.md").read_text())
    workshop = "workshop/index\n" if (DOCS / "workshop" / "index.md").exists() else ""
    page("index.md", relinked(front, "README.md", "index.md", launch) + FRONT.format(workshop=workshop))
    for name, to in (
        ("CONTRIBUTING.md", "project/contributing.md"),
        ("CHANGELOG.md", "project/changelog.md"),
    ):
        page(to, relinked((ROOT / name).read_text(), name, to, launch))
    for name in FILES:
        file(ROOT / name, f"project/{name}")

    for path in sorted(DOCS.rglob("*")):
        name = path.relative_to(DOCS).as_posix()
        if not path.is_file() or name.startswith("_") or name in EXECUTED or path.suffix in {".py", ".pyc"}:
            continue
        if path.suffix == ".md":
            text = path.read_text().replace("<!-- launch table -->\n", launch.table(lessons))
            if name == "workshop/index.md":
                text += tree_of(sorted(other.stem for other in path.parent.glob("*.md") if other != path))
            page(name, relinked(text, f"docs/{name}", name, launch))
        else:
            file(path, name)

    for name in EXECUTED:
        notebook = notebook_of(relinked((DOCS / name).read_text(), f"docs/{name}", name, launch))
        done = drawn(executed(notebook, Path(name).stem, CACHE))
        page(name.replace(".md", ".ipynb"), nbformat.writes(done))

    rows = []
    for path, title in lessons.items():
        notebook = nbformat.read(ROOT / path, as_version=4)
        name = Path(path).name
        if run:
            sys.stdout.write(f"running {path}\n")
            notebook = drawn(executed(notebook, Path(path).stem, CACHE))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = relinked(cell.source, path, f"tutorials/{name}", launch)
        head = notebook.cells[0].source
        question = re.search(r"\*\*Question\.\*\*\s*(.+?)(?:\n\n|\Z)", head, re.S)
        rows.append(
            f"[{numbered(path, title)}]({name})\n: {' '.join(question[1].split()) if question else ''}\n"
        )
        first, _, rest = head.partition("\n")
        notebook.cells[0].source = f"{first}\n\n{launch.lesson(path)}\n{rest}"
        page(f"tutorials/{name}", nbformat.writes(notebook))
    for path in sorted((ROOT / "notebooks").glob("pictures/*")):
        file(path, f"tutorials/pictures/{path.name}")
    intro = (DOCS / "_sphinx" / "tutorials.md").read_text()
    page(
        "tutorials/index.md",
        "\n".join(
            [
                intro,
                *rows,
                tree_of([f"{numbered(path, title)} <{Path(path).stem}>" for path, title in lessons.items()]),
            ]
        ),
    )

    for path in sorted(source.rglob("*")):  # a page of a lesson that was renamed
        if path.is_file() and path not in there:
            path.unlink()


def build(to: Path, *, run: bool) -> int:
    """Build everything under `to`, and return Sphinx's exit code."""
    lay_out(to / "source", Launch.of(), run=run)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "-E",
        "-W",
        "--keep-going",
        "-q",
        "-c",
        str(DOCS),
    ]
    code = subprocess.run(
        [*command, "-d", str(to / "doctrees"), str(to / "source"), str(to / "html")]
    ).returncode
    downloads = to / "html" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    for path in notebooks():
        shutil.copyfile(ROOT / path, downloads / Path(path).name)
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-run", action="store_true", help="leave the lessons' outputs out")
    parser.add_argument("--to", type=Path, default=DOCS / "_build", help="where to build")
    options = parser.parse_args()
    status = build(options.to.resolve(), run=not options.no_run)
    if not status:
        sys.stdout.write(f"open {options.to / 'html' / 'index.html'}\n")
    sys.exit(status)
