"""Run notebooks and pages, and make of their outputs what a page shows without a kernel or a network."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).parents[1]
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d+%\|")  # tqdm's, in words
HEAD = re.compile(r"_(?=[^<>]*</th>)")
"""An underscore in the head of a column or a row: the names of measures may be broken there."""

LIVE = "Here is something to explore: it needs a notebook with a kernel."
FENCE = re.compile(r"^```python\n(.*?)^```\n", re.S | re.M)


def snippets(text: str) -> list[str]:
    """Return the Python blocks of a Markdown page, in order."""
    return FENCE.findall(text)


def notebook_of(text: str) -> Any:
    """Return a Markdown page as a notebook whose code cells are its Python blocks."""
    parts = FENCE.split(text)
    make = (nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell)
    cells = [make[at % 2](part.strip("\n"), id=str(at)) for at, part in enumerate(parts) if part.strip()]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def fingerprint(notebook: Any) -> str:
    """Return a name for what a run's outputs depend on: the cells, nadkit's files, the interpreter."""
    digest = hashlib.sha256(sys.version.encode())
    digest.update(json.dumps([cell.source for cell in notebook.cells if cell.cell_type == "code"]).encode())
    for path in sorted((ROOT / "nadkit").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def executed(notebook: Any, name: str, cache: Path) -> Any:
    """Return the notebook with its outputs: run on one thread, or as it was run before."""
    kept = cache / f"{name}-{fingerprint(notebook)}.ipynb"
    if kept.exists():
        before = nbformat.read(kept, as_version=4)
        # Prose may have changed without a run; code cells are the same, or the name would differ.
        outputs = iter(cell for cell in before.cells if cell.cell_type == "code")
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = next(outputs).outputs
        return notebook
    import nbclient
    from traitlets.config import Config

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(
        os.pathsep
    )
    with tempfile.TemporaryDirectory() as folder:  # a lesson that writes files must not write them here
        sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        client = nbclient.NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            config=sockets,
        )
        client.execute()
    notebook.metadata.pop("widgets", None)
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob(f"{name}-*.ipynb"):
        old.unlink()
    nbformat.write(notebook, kept)
    return notebook


def drawn(notebook: Any) -> Any:
    """Return the notebook with outputs that a static page can show.

    A plotly figure becomes its data in the page, drawn by the local plotly.js. A widget without a kernel
    would be a row of dead buttons: in its place is the picture that nadkit prints beside it, or a line.
    """
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        if any(_is_bar(output) for output in outputs):
            cell.outputs = outputs = [output for output in outputs if not _is_bar(output)]
        still = any("nadkit-still" in output.get("data", {}).get("text/html", "") for output in outputs)
        if still:
            cell.outputs = outputs = [o for o in outputs if WIDGET not in o.get("data", {})]
        live = [output for output in outputs if WIDGET in output.get("data", {})]
        if len(live) > 1:  # one line is enough
            cell.outputs = outputs = [o for o in outputs if o is live[0] or WIDGET not in o.get("data", {})]
        for output in outputs:
            data = output.get("data", {})
            if 'class="dataframe"' in data.get("text/html", ""):
                data["text/html"] = HEAD.sub(r"_<wbr>", data["text/html"])
            if PLOTLY in data:
                data["text/html"] = figure_html(data.pop(PLOTLY))
            elif WIDGET in data:
                del data[WIDGET]
                data.pop("text/plain", None)
                data["text/html"] = f'<p class="nadkit-live">{LIVE}</p>'
    return notebook


def _is_bar(output: Any) -> bool:
    """Whether an output is the progress of something that is done."""
    data = output.get("data", {})
    if output.get("name") != "stderr" and WIDGET not in data:
        return False  # a table of a cell's own may hold such marks
    return bool(BAR.search(output.get("text", "") or data.get("text/plain", "")))


def figure_html(figure: dict[str, Any]) -> str:
    """Return a plotly figure as HTML for `figures.js`, named by its alternative text."""
    layout = figure["layout"]
    alt = (
        layout.get("meta", {}).get("alt")
        or (layout.get("title") or {}).get("text")
        or "A figure without words."
    )
    height = int(layout.get("height") or 450)
    content = json.dumps({"data": figure["data"], "layout": layout}).replace("</", "<\\/")
    said = html.escape(re.sub(r"<[^>]+>", " ", alt))
    return (
        f'<figure class="nadkit-figure"><div class="nadkit-scroll"><div class="nadkit-plot" role="img" '
        f'aria-label="{said}" style="height:{height}px"></div></div>'
        f'<script type="application/json">{content}</script>'
        f"<noscript><p>{said}</p></noscript></figure>"
    )
