"""The static pictures of notebooks: which cell is taken, and how large its file may be."""

from __future__ import annotations

import io
from pathlib import Path

import nbformat
import pytest
from pages import Lab
from pictures import place_of, small_png, take
from PIL import Image

RED = 'from IPython.display import SVG\nprint(\'x\')\nSVG(\'<svg width="90" height="40"><rect width="90" \
height="40" fill="#f00"/></svg>\')'


def notebook_at(path: Path, *sources: str, tagged: int = 1) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[tagged].metadata["tags"] = ["picture"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_the_tagged_cells_figure_is_taken(lab: Lab, tmp_path: Path) -> None:
    target = take(lab, notebook_at(tmp_path / "07_red.ipynb", "1", RED), tmp_path / "pages")
    assert target == tmp_path / "pictures" / "07_red.png"
    colours = Image.open(target).convert("RGB").getcolors() or []
    assert max(n for n, colour in colours if colour[0] > 250 > 5 > colour[1]) > 3000
    assert len(list((tmp_path / "pages").iterdir())) == 2


def test_one_cell_must_be_tagged(tmp_path: Path) -> None:
    notebook = nbformat.read(notebook_at(tmp_path / "a.ipynb", "1", "2", "3"), as_version=4)
    assert place_of(notebook, "picture") == 1
    notebook.cells[2].metadata["tags"] = ["picture"]
    with pytest.raises(SystemExit, match="2 code cells"):
        place_of(notebook, "picture")


def test_pictures_are_made_small_and_stay_pictures() -> None:
    noise = Image.effect_noise((900, 600), 90)
    out = io.BytesIO()
    noise.save(out, "PNG")
    small = small_png(out.getvalue(), 100_000)
    assert len(small) <= 100_000
    assert Image.open(io.BytesIO(small)).width < 900
    with pytest.raises(SystemExit, match="does not fit"):
        small_png(out.getvalue(), 100)
