"""Notebooks: kept within the budget, stripped in git, and executed in order on a fresh kernel."""

from __future__ import annotations

import base64
import re
import shutil
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbclient
import nbformat
import pytest
from lessons import faults_of_claim, faults_of_early_checks, faults_of_shape, tags, with_early_checks
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d+%\|")  # of progress
SHIPPED = ROOT / "nadkit" / "data"

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
            layout = data.get("application/vnd.plotly.v1+json", {"layout": {"meta": {"alt": "-"}}})["layout"]
            if not (layout.get("meta") or {}).get("alt"):
                found.append(f"cell {number}: a figure without layout.meta['alt']")
    return found


def shapes_of(figure: str) -> int:
    """How much a widget's static picture draws: paths, pictures and frames; 0 if it is words alone."""
    (encoded,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', figure)
    drawing = ElementTree.fromstring(base64.b64decode(encoded).decode())
    shapes = [
        node for node in drawing.iter() if node.tag.rpartition("}")[2] in {"path", "image", "rect", "use"}
    ]
    return len(shapes) - 1  # the ground


def undrawn_widgets(notebook: Any) -> list[str]:
    """Widgets in whose place a page without a kernel shows no picture."""
    found = []
    for number, cell in enumerate(notebook.cells):
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        live = sum(WIDGET in one and not BAR.search(one.get("text/plain", "")) for one in data)
        stills = [one["text/html"] for one in data if "nadkit-still" in one.get("text/html", "")]
        found += [f"cell {number}: {live} widgets, {len(stills)} pictures"] * (live != len(stills))
        found += [f"cell {number}: a picture of words alone" for one in stills if not shapes_of(one)]
    return found


def execute(notebook: Any, work: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook with its outputs, run in a folder of its own by this very interpreter and nadkit."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(work))
    monkeypatch.setenv("IPYTHONDIR", str(work / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
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
def test_notebook_has_the_shape_of_a_lesson(path: Path) -> None:
    assert faults_of_shape(read(path), path.stem, path.parent) == []


def test_every_picture_belongs_to_a_notebook() -> None:
    there = {path.stem for path in (ROOT / "notebooks" / "pictures").iterdir()}
    assert there == {path.stem for path in NOTEBOOKS}


@pytest.mark.notebooks
@each_notebook
def test_notebook_runs(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = execute(with_early_checks(read(path)), tmp_path_factory.mktemp("nb"), monkeypatch)
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert [o["text"] for o in outputs if o.output_type == "stream" and o["name"] == "stderr"] == []
    assert outputs, "it shows nothing"
    assert speechless_pictures(done) == []
    assert undrawn_widgets(done) == []
    assert faults_of_early_checks(done) == []
    assert faults_of_claim(done) == []


def test_the_tour_is_shipped_as_it_is() -> None:
    """`python -m nadkit tour` executes the package's copy: it must be the notebook that people read."""
    for name in ("00_tour.ipynb", "pictures/00_tour.png"):
        assert (SHIPPED / name).read_bytes() == (ROOT / "notebooks" / name).read_bytes(), f"copy {name}"


# The students' copy


def make_student(folder: Path) -> Path:
    """What `make student` makes, with this interpreter in place of the one that it would install."""
    made = folder / "student"
    command = ["make", "-C", ROOT, "student", f"PY={sys.executable}", f"STUDENT={made}", "INSTALLED="]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return made


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_students_get_everything_but_the_solutions(tmp_path: Path) -> None:
    made = make_student(tmp_path)
    with zipfile.ZipFile(tmp_path / "nadkit-workshop.zip") as packed:
        names = set(packed.namelist())
    assert {"student/00_tour.ipynb", "student/summary.md", "student/tables/evidence.csv"} <= names
    assert {p.name for p in made.iterdir()} == {
        "pictures",
        "summary.md",
        "tables",
        *(p.name for p in NOTEBOOKS),
    }
    assert any((made / "pictures").iterdir())
    for path in NOTEBOOKS:
        ours, theirs = read(path), read(made / path.name)
        left = [cell for cell in ours.cells if "solution" not in tags(cell)]
        assert len(left) < len(ours.cells)
        assert [(c.id, c.source) for c in theirs.cells] == [(c.id, c.source) for c in left]
        assert traces_of_running(theirs) == []


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
    figures = [{"layout": {"meta": {"alt": "a line"}}}, {"layout": {}}]
    page = "<img src='a'><img alt='' src='b'><img src='c' alt='a sneaker'>"
    data = {"image/png": "iVBO", "text/html": page}
    shown = [data, *({"application/vnd.plotly.v1+json": figure} for figure in figures)]
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", data=data) for data in shown]
    assert len(speechless_pictures(notebook)) == 4


def test_widgets_without_a_drawing_are_noticed() -> None:
    def figure(*shapes: str) -> str:
        drawing = f'<svg xmlns="http://www.w3.org/2000/svg"><rect/>{"".join(shapes)}<text>words</text></svg>'
        encoded = base64.b64encode(drawing.encode()).decode()
        return (
            f'<figure class="nadkit-still-1"><img alt="x" src="data:image/svg+xml;base64,{encoded}"></figure>'
        )

    widget = {WIDGET: {}, "text/plain": "Panel()"}
    cases: list[tuple[list[dict[str, Any]], int]] = [
        ([{"text/html": figure("<path/>")}, widget], 0),
        ([{"text/html": figure("<image/>")}, widget], 0),
        ([{"text/html": figure()}, widget], 1),
        ([widget], 1),
        ([{"text/html": figure("<path/>")}, widget, widget], 1),
        ([{WIDGET: {}, "text/plain": "one-vs-rest: 100%|###| 20/20"}], 0),
    ]
    for shown, faults in cases:
        notebook = notebook_of("x")
        notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", data=data) for data in shown]
        assert len(undrawn_widgets(notebook)) == faults, shown


def markdown(source: str, **metadata: Any) -> Any:
    return nbformat.v4.new_markdown_cell(source, metadata=metadata)


def code(source: str, *tags: str, **metadata: Any) -> Any:
    return nbformat.v4.new_code_cell(source, metadata={**metadata, "tags": list(tags)})


def exercise(number: int) -> list[Any]:
    return [
        markdown(f"### Exercise {number} (5 min)\n\nDo. <details><summary>Hint</summary>Think.</details>"),
        code("answer = None"),
        code("if answer is None:\n    answer = 4", "solution", "hide-cell", jupyter={"source_hidden": True}),
        code("assert answer == 4, 'answer is not 4 yet'", "check"),
    ]


def section(*tags: str) -> list[Any]:
    return [
        markdown("## Look\n\n**Predict.** What? " + "word " * 300),
        code("x = 1", *tags),
        markdown("**Read.** So.\n\n**What it does not show.** All."),
    ]


def lesson() -> Any:
    """A notebook without a fault, as short as they come."""
    head = (
        "# Is it so?\n\n**Question.** Is it?\n\n**Afterwards you can**\n\n- one\n- two\n- three\n\n"
        "**Time.** 5 minutes. **Needs.** Nothing.\n\n![A line that rises at every step](pictures/01_so.png)"
    )
    claim = "print(f'Claim: {x}. Effect: {x}. Interval: {x}. Control: {x}. It does not show {x}.')"
    cells = [
        markdown(head), code("torch.set_num_threads(1)"), *section("picture"), *section(),
        code("y = x\nassert y == x", "by-hand"), *exercise(1), *exercise(2), code(claim, "claim"),
        markdown("**Further reading.** A paper.\n\nWhen you are done, shut the kernel down."),
    ]  # fmt: skip
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of notebooks with one static picture."""
    picture = tmp_path / "pictures" / "01_so.png"
    picture.parent.mkdir()
    picture.write_bytes(b"\x89PNG" + bytes(100_000))
    return tmp_path


def test_a_good_lesson_has_no_fault(folder: Path) -> None:
    assert faults_of_shape(lesson(), "01_so", folder) == []


@pytest.mark.parametrize(
    ("cell", "old", "new", "fault"),
    [
        (0, "so?", "so", "not a question"),
        (0, "**Needs.**", "Needs:", "lacks **Needs.**"),
        (0, "- three\n", "", "2 things"),
        (0, "5 minutes", "short", "no minutes"),
        (0, "01_so", "02_so", "not pictures/01_so.png"),
        (0, "A line that rises at every step", "Figure", "no words"),
        (1, "torch.set_num_threads(1)", "x = 0", "one thread"),
        (1, "torch.set_num_threads(1)", "torch.set_num_threads(1)\n" * 13, "setup cell of 13 lines"),
        (2, "word " * 300, "", "words, not 600"),
        (2, "word " * 300, "word " * 1300, "words, not 600"),
        (2, "**Predict.**", "**Read.**", "1 times predict"),
        (4, "**Read.**", "", "nothing runs and reads"),
        (4, "**What it does not show.**", "", "1 times not shown"),
        (8, "assert y == x", "y == x", "does not end in an assertion"),
        (9, "(5 min)", "", "is not '### Exercise 1 (5 min)'"),
        (9, "### Exercise 1", "### Task 1", "1 exercises"),
        (9, "Hint", "Help", "exercise 1 has no hint"),
        (11, "if answer is None:\n    answer = 4", "answer = 4", "exercise 1 overwrites answer"),
        (12, ", 'answer is not 4 yet'", "", "says nothing"),
        (12, "assert answer == 4, 'answer is not 4 yet'", "answer", "asserts nothing"),
        (17, "Control", "Other", "does not say: control"),
        (17, "f'", "'", "prints no number"),
        (18, "shut the kernel down", "stop", "shut the kernel down"),
        (18, "**Further reading.**", "Read", "no **Further"),
    ],
)
def test_the_shape_notices(cell: int, old: str, new: str, fault: str, folder: Path) -> None:
    notebook = lesson()
    assert old in notebook.cells[cell].source
    notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)
    assert [f for f in faults_of_shape(notebook, "01_so", folder) if fault in f]


@pytest.mark.parametrize(
    ("cell", "left", "fault"),
    [
        (3, [], "0 cells tagged picture"),
        (6, ["picture"], "2 cells tagged picture"),
        (8, [], "0 cells tagged by-hand"),
        (10, ["by-hand"], "2 cells tagged by-hand"),
        (11, ["solution"], "not folded"),
        (11, [], "not one solution"),
        (12, [], "not one solution"),
        (17, [], "0 cells tagged claim"),
    ],
)
def test_the_shape_notices_tags(cell: int, left: list[str], fault: str, folder: Path) -> None:
    notebook = lesson()
    notebook.cells[cell].metadata["tags"] = left
    assert [f for f in faults_of_shape(notebook, "01_so", folder) if fault in f]


def test_the_shape_notices_pictures_too_large_and_solutions_in_the_text(folder: Path) -> None:
    notebook = lesson()
    notebook.cells.insert(10, markdown("<details><summary>Solution</summary>Four.</details>"))
    assert faults_of_shape(notebook, "01_so", folder) == ["a solution in the text is not tagged so"]
    (folder / "pictures" / "01_so.png").write_bytes(b"\x89PNG" + bytes(200_000))
    assert "200 kB" in faults_of_shape(lesson(), "01_so", folder)[0]
    (folder / "pictures" / "01_so.png").unlink()
    assert "no PNG file" in faults_of_shape(lesson(), "01_so", folder)[0]


@pytest.mark.notebooks
def test_checks_must_fail_before_their_solutions_with_a_message(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[*exercise(1), *exercise(2), *exercise(3), lesson().cells[17]])
    notebook.cells[5].source = "answer = 4"  # solved before the solution
    notebook.cells[9].source = "del answer"  # the check trips over a missing name
    notebook.cells[10].source = "x = answer = 4"
    done = execute(with_early_checks(notebook), tmp_path_factory.mktemp("nb"), monkeypatch)
    faults = [fault.partition(": ")[2] for fault in faults_of_early_checks(done)]
    assert faults == ["passes", "[('NameError', True)]"]
    assert faults_of_claim(done) == []
    done.cells[-1].outputs[0]["text"] = "Claim, effect and control"
    assert len(faults_of_claim(done)) == 2


@pytest.mark.notebooks
def test_a_failing_cell_fails_and_nothing_leaks_between_runs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = execute(notebook_of("x = 1\nprint(x, end='')"), tmp_path_factory.mktemp("nb"), monkeypatch)
    assert done.cells[0].outputs[0]["text"] == "1"
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="name 'x' is not defined"):
        execute(notebook_of("print(x)"), tmp_path_factory.mktemp("nb"), monkeypatch)
