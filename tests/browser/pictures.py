"""Take the static pictures of notebooks: `python tests/browser/pictures.py notebooks/00_tour.ipynb`.

Each notebook is run in JupyterLab; what the cell tagged `picture` shows goes to `pictures/` beside it, for
whoever opens the notebook without a kernel. `--pages FOLDER` also writes a picture of every cell.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from pages import PATIENCE, Lab, expect, notebook_page
from server import jupyter_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DRAWN = ".js-plotly-plot, .jupyter-widgets, img, svg"
BUSY = ".nadkit-progress:not([hidden]), .nadkit-stale"  # a widget that is still at work
MOST = 120_000  # bytes of a picture
SETTLED = 2000  # milliseconds that a figure gets to be drawn
TALL = 3000  # pixels of the window: higher than the explorer
WIDTH = 1200  # pixels; fewer are taken where a picture would become too large


def place_of(notebook: Any, tag: str) -> int:
    """Which code cell, counted from 0, has a tag."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = [n for n, cell in enumerate(code) if tag in cell.metadata.get("tags", [])]
    if len(found) != 1:
        raise SystemExit(f"{len(found)} code cells are tagged {tag!r}, not one")
    return found[0]


def small_png(data: bytes, most: int = MOST) -> bytes:
    """A PNG file of at most `most` bytes: with a palette, and scaled down as far as it takes."""
    from PIL import Image

    picture: Any = Image.open(io.BytesIO(data)).convert("RGB")
    for width in range(min(WIDTH, picture.width), 300, -50):
        scaled = picture.resize(
            (width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS
        )
        out = io.BytesIO()
        scaled.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= most:
            return out.getvalue()
    raise SystemExit(f"the picture does not fit {most} bytes at any width")


def take(lab: Lab, path: Path, pages: Path | None = None) -> Path:
    """Run a notebook in the page and write its picture beside it; return where it is."""
    notebook = nbformat.read(path, as_version=4)
    place = place_of(notebook, "picture")
    if pages is None:  # what follows the cell would change the widget that it shows
        code = [at for at, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
        notebook.cells = notebook.cells[: code[place] + 1]
    nbformat.write(notebook, lab.server.folder / path.name)
    if (path.parent / "pictures").is_dir():
        shutil.copytree(path.parent / "pictures", lab.server.folder / "pictures", dirs_exist_ok=True)
    lab.open(path.name).run_all(600)
    lab.page.set_viewport_size({"width": 1500, "height": TALL})  # an element is taken as far as it is seen
    lab.page.wait_for_timeout(SETTLED)
    expect(lab.output(place).locator(BUSY)).to_have_count(0, timeout=PATIENCE * 1000)
    lab.page.wait_for_timeout(SETTLED)
    target = path.parent / "pictures" / f"{path.stem}.png"
    target.parent.mkdir(exist_ok=True)
    outputs = lab.output(place).locator(".jp-OutputArea-output")
    drawn = outputs.filter(has=lab.page.locator(DRAWN))
    target.write_bytes(small_png((drawn if drawn.count() else outputs).last.screenshot()))
    if pages is not None:
        pages.mkdir(parents=True, exist_ok=True)
        for number, cell in enumerate(lab.page.locator(".jp-Notebook .jp-Cell").all()):
            cell.screenshot(path=pages / f"{path.stem}-{number:02}.png")
    return target


def main(arguments: list[str] | None = None) -> int:
    """Take the pictures of the notebooks named."""
    from conftest import OPTIONS, browser_path
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--pages", type=Path, help="a folder for pictures of every cell")
    options = parser.parse_args(arguments)
    if (path := browser_path()) is None:
        print("no Chromium: install chromium, or name one in NADKIT_CHROMIUM", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "notebooks").mkdir()
        server = stack.enter_context(jupyter_server(folder / "notebooks", folder))
        launch = stack.enter_context(sync_playwright()).chromium.launch
        browser: Browser = launch(executable_path=path, args=OPTIONS, timeout=PATIENCE * 1000)
        stack.callback(browser.close)
        for notebook in options.notebooks:
            with notebook_page(browser, server) as lab:
                target = take(lab, notebook, options.pages)
            print(f"{target}: {target.stat().st_size / 1000:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
