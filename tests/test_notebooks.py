"""Notebooks: kept within the budget, stripped in git, and executed in order on a fresh kernel."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHIPPED = ROOT / "nadkit" / "data" / "00_tour.ipynb"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def over_budget(notebook: Any) -> list[str]:
    """What breaks the budget of a notebook, in words."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = [len([line for line in source.splitlines() if line.strip()]) for source in code]
    faults = [f"{n} cells, at most 60" for n in [len(notebook.cells)] if n > 60]
    faults += [f"a code cell of {n} lines, at most 20" for n in lines if n > 20]
    faults += [
        f"median of {n} lines a code cell, at most 6" for n in [statistics.median(lines or [0])] if n > 6
    ]
    faults += [f"{n} lines of code, at most 200" for n in [sum(lines)] if n > 200]
    for source in code:
        faults += [f"a shell or magic line: {line}" for line in re.findall(r"^\s*[!%].*", source, re.M)]
        faults += [f"a network address: {line}" for line in re.findall(r".*https?://.*", source)]
    return faults


def traces_of_running(notebook: Any) -> list[str]:
    """What a run left behind: outputs, counts, the state of widgets, the interpreter's version."""
    found = [f"metadata {key}" for key in sorted(set(notebook.metadata) - {"kernelspec", "language_info"})]
    found += ["language version"] * ("version" in notebook.metadata.get("language_info", {}))
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            found += [f"cell {number}: outputs"] * bool(cell.outputs)
            found += [f"cell {number}: execution count"] * (cell.execution_count is not None)
            found += [f"cell {number}: execution times"] * ("execution" in cell.metadata)
    return found


def speechless_pictures(notebook: Any) -> list[str]:
    """Pictures in the outputs that a screen reader cannot name."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found += [f"cell {number}: {kind} has no alt text" for kind in data if kind.startswith("image/")]
            for tag in re.findall(r"<img\b[^>]*>", data.get("text/html", "")):
                if not re.search(r"""\balt=("[^"]+"|'[^']+')""", tag):
                    found.append(f"cell {number}: {tag[:60]} has no alt text")
    return found


def execute(path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook with its outputs, run in a folder of its own by this very interpreter and nadkit."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(work))
    monkeypatch.setenv("IPYTHONDIR", str(work / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(path)
    # Over TCP the kernel warns of missing encryption. The sockets' path must be absolute, since the kernel
    # runs in another folder than this process.
    sockets = Config({"KernelManager": {"transport": "ipc", "ip": str(work / "kernel")}})
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
        config=sockets,
    )
    client.execute()
    return notebook


@each_notebook
def test_notebook_keeps_the_budget(path: Path) -> None:
    assert over_budget(read(path)) == []


@each_notebook
def test_notebook_is_stripped_and_valid(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert traces_of_running(notebook) == [], "strip it: make format"
    assert notebook.metadata.kernelspec.name == "python3"
    assert re.fullmatch(r"\d\d_[a-z_]+", path.stem)


@each_notebook
def test_notebook_opens_with_a_title(path: Path) -> None:
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@pytest.mark.notebooks
@each_notebook
def test_notebook_runs(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = execute(path, tmp_path_factory.mktemp("nb"), monkeypatch)
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert [o["text"] for o in outputs if o.output_type == "stream" and o["name"] == "stderr"] == []
    assert outputs, "it shows nothing"
    assert speechless_pictures(done) == []


def test_the_tour_is_shipped_as_it_is() -> None:
    """`python -m nadkit tour` executes the package's copy: it must be the notebook that people read."""
    assert SHIPPED.read_bytes() == (ROOT / "notebooks" / "00_tour.ipynb").read_bytes()


# The rulers themselves


def notebook_of(*sources: str) -> Any:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        (["x = 1"] * 61, "61 cells"),
        (["x = 1\n" * 21, "x", "x"], "21 lines, at most 20"),
        (["x = 1\n" * 7] * 3, "median of 7"),
        (["x = 1\n" * 20] * 11 + ["x"] * 12, "232 lines"),
        (["!pip install nadkit"], "shell or magic"),
        (["x = 1\n  %pip install nadkit"], "shell or magic"),
        (["open('https://example.org')"], "network"),
    ],
)
def test_the_budget_notices(sources: list[str], fault: str) -> None:
    assert len([f for f in over_budget(notebook_of(*sources)) if fault in f]) == 1


def test_the_budget_allows_its_limits() -> None:
    assert over_budget(notebook_of(*["x = 1\n" * 6] * 30 + ["x = 1\n\n" * 20])) == []


def test_traces_of_running_are_noticed() -> None:
    notebook = notebook_of("x", "y", "z")
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="1")]
    notebook.cells[1].execution_count = 3
    notebook.cells[2].metadata["execution"] = {"iopub.status.busy": "2024"}
    notebook.metadata["widgets"] = {}
    assert len(traces_of_running(notebook)) == 4


def test_pictures_without_words_are_noticed() -> None:
    notebook = notebook_of("x")
    page = "<img src='a'><img alt='' src='b'><img src='c' alt='a sneaker'>"
    data = {"image/png": "iVBO", "text/html": page}
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", data=data)]
    assert len(speechless_pictures(notebook)) == 3


@pytest.mark.notebooks
def test_a_failing_cell_fails_and_nothing_leaks_between_runs(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat.write(notebook_of("x = 1\nprint(x, end='')"), tmp_path / "sets.ipynb")
    nbformat.write(notebook_of("print(x)"), tmp_path / "needs.ipynb")
    done = execute(tmp_path / "sets.ipynb", tmp_path_factory.mktemp("nb"), monkeypatch)
    assert done.cells[0].outputs[0]["text"] == "1"
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="name 'x' is not defined"):
        execute(tmp_path / "needs.ipynb", tmp_path_factory.mktemp("nb"), monkeypatch)
