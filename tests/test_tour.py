"""The commands `tour` and `doctor`: the page, the table, the checks, and what they say of faults."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nadkit import __main__ as command
from nadkit.errors import NadkitError

nbformat: Any = pytest.importorskip("nbformat")

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
FIGURE: dict[str, Any] = {
    "data": [{"type": "bar", "x": ["a</script><script>alert(1)</script>"], "y": [1]}],
    "layout": {"meta": {"alt": 'Bars of "a" & <b>'}, "width": 3000, "height": 300},
}


def code(source: str, *outputs: Any) -> Any:
    return nbformat.v4.new_code_cell(source, outputs=list(outputs))


def shown(**data: Any) -> Any:
    data = {key.replace("__", "/"): value for key, value in data.items()}
    return nbformat.v4.new_output("display_data", data=data)


def notebook_of(*cells: Any) -> Any:
    return nbformat.v4.new_notebook(cells=list(cells))


@pytest.fixture
def small() -> Any:
    """A notebook with every kind of output that the page must show."""
    picture = nbformat.v4.new_output(
        "display_data", data={"image/png": DOT, "text/plain": "x"}, metadata={"image/png": {"alt": "a dot"}}
    )
    failed = nbformat.v4.new_output(
        "error", ename="ValueError", evalue="v", traceback=["\x1b[31mValueError\x1b[0m: v"]
    )
    return notebook_of(
        nbformat.v4.new_markdown_cell(
            "# Is it *so*?\n\nSee [there](https://example.org).\n\n![a\nline](pictures/a.png)\n\n## First"
        ),
        code("x = 1  # one", nbformat.v4.new_output("stream", text="1 < 2 <script>")),
        code("figure", shown(**{command.FIGURE: FIGURE, "text__plain": "Figure()"})),
        code("figure", shown(**{command.FIGURE: {**FIGURE, "layout": {}}})),
        code("images", shown(text__html=f'<img alt="a sneaker" src="data:image/png;base64,{DOT}">')),
        code("fails", picture, failed),
    )


VOID = {"img", "meta", "br", "link"}


class Reader(HTMLParser):
    """What a browser would see: tags with their attributes, and the text inside each kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while tag not in VOID and self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.inside.setdefault(tag, []).append(data)

    def text(self, tag: str) -> str:
        return "".join(self.inside.get(tag, []))


# The page


def test_the_page_loads_nothing(small: Any) -> None:
    page = command.build_page(small)
    read = Reader(page)
    loads = [
        (tag, value)
        for tag, attributes in read.tags
        for name, value in attributes.items()
        if name in {"src", "srcset", "data", "poster"} or (tag == "link" and name == "href")
    ]
    assert loads
    assert [load for load in loads if not str(load[1]).startswith("data:")] == []
    assert not re.search(r"@import|url\(", read.text("style"))
    policy = next(a["content"] for t, a in read.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_page_holds_plotly_once_and_only_if_it_is_needed(small: Any) -> None:
    page = command.build_page(small)
    assert len(page) < 7e6
    assert sum(len(text) > 1e6 for text in Reader(page).inside["script"]) == 1
    small.cells = small.cells[:2]
    assert len(command.build_page(small)) < 1e5


def test_every_figure_has_its_words(small: Any) -> None:
    read = Reader(command.build_page(small))
    labels = [a["aria-label"] for _, a in read.tags if a.get("role") == "img"]
    assert labels == ['Bars of "a" & <b>', "figure without a description"]
    assert "".join(read.inside["figcaption"]) == "".join(str(label) for label in labels)
    assert [a.get("alt") for tag, a in read.tags if tag == "img"] == ["a sneaker", "a dot"]


def test_what_a_figure_or_an_output_says_cannot_become_code(small: Any) -> None:
    read = Reader(command.build_page(small))
    assert len([tag for tag, _ in read.tags if tag == "script"]) == 3  # plotly.js and two figures
    assert "1 < 2 <script>" in read.text("pre")
    drawn = [text for text in read.inside["script"] if "Plotly.newPlot(document" in text]
    assert len(drawn) == 2
    assert "alert(1)" in drawn[0]
    assert "3000" not in drawn[0]  # a width of its own would not fit the page


def test_the_page_shows_code_errors_and_title(small: Any) -> None:
    page = command.build_page(small, "<p>more</p>")
    read = Reader(page)
    assert read.text("title") == "Is it so?"
    assert "ValueError: v" in read.text("pre")
    assert "\x1b" not in page
    assert "x = 1  # one" in read.text("pre")
    assert "more" in read.text("main")
    assert "¶" not in read.text("main")
    assert ("a", "https://example.org") in [(tag, a.get("href")) for tag, a in read.tags]


def test_building_a_page_leaves_the_notebook_alone(small: Any) -> None:
    before = copy.deepcopy(small)
    command.build_page(small)
    assert small == before


# The table


def around(value: float, more: float, interval: bool) -> tuple[float, float, float]:
    return (value + more, value - 0.1, value + 0.1) if interval else (value, value, value)


def facts(condition: str, value: float, tasks: tuple[str, ...] = ("bag", "shirt", "mean")) -> pd.DataFrame:
    metrics = ("recall", "false_alarm", "balanced_accuracy", "balanced_accuracy_calibrated", "kept_share")
    rows = [
        ("net", task, condition, metric, *around(value, place / 100, metric != "kept_share"), 9)
        for task in tasks
        for place, metric in enumerate(metrics)
    ]
    columns = ["network", "task", "condition", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """`whether` and the masks replaced; what was asked of them."""
    seen: list[dict[str, Any]] = []

    def whether(network: Any, masks: str, images: Any, **settings: Any) -> pd.DataFrame:
        seen.append({"network": network.name, "masks": masks, "images": images.counts()["bag"], **settings})
        names = ("kept", "untrained", "random", "removed", "whole", "relabelled", "shared")
        table = pd.concat([facts(name, 0.2 if masks == "official" else 0.7) for name in names])
        table.attrs["answer"] = f"answer of {masks}"
        return table

    monkeypatch.setattr("nadkit.questions.whether", whether)
    monkeypatch.setattr(
        "nadkit.networks.load_masks",
        lambda _, objective="own", kept_share=None: objective if kept_share else 0,
    )
    monkeypatch.setattr("nadkit.learn.learn_masks", lambda *_, kept_share: f"learned {kept_share}")
    return seen


def test_the_table_puts_the_published_recipe_beside_the_controls(asked: list[dict[str, Any]]) -> None:
    table, answer = command.evidence(learn=False)
    assert answer == "answer of own"
    assert [call["masks"] for call in asked] == ["own", "official"]
    assert asked[1]["controls"] is None
    assert all(len(call["calibrate_on"]) == 1000 for call in asked)
    assert list(table.columns) == ["recall", "false alarm", "balanced accuracy", "calibrated", "kept share"]
    assert list(table.index) == [(t, c) for t in ("bag", "shirt", "mean") for c in command.CONDITIONS]
    assert table.loc[("shirt", "official"), "recall"] == "0.20 [0.10, 0.30]"
    assert table.loc[("shirt", "kept"), "balanced accuracy"] == "0.72 [0.60, 0.80]"
    assert table.loc[("shirt", "kept"), "calibrated"] == "0.73 [0.60, 0.80]"


def test_learned_masks_replace_the_bundled_ones(asked: list[dict[str, Any]]) -> None:
    command.evidence(learn=True)
    assert [call["masks"] for call in asked] == ["learned 0.3", "official"]


def test_the_table_fits_a_terminal(asked: list[dict[str, Any]]) -> None:
    del asked
    table = command.evidence(learn=False)[0].rename(index={"shirt": "ankle boot"})
    lines = command.table_text(table).splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[0].split()[:3] == ["task", "condition", "recall"]
    assert [line.split("  ")[0] for line in lines if line and line[0] != " "] == [
        "task", "bag", "ankle boot whole", "mean",
    ]  # fmt: skip
    assert lines.count("") == 3
    values = [line for line in lines[1:] if line]
    assert len(values) == 3 * 7
    assert {line.index("[") for line in values} == {
        lines[0].index("recall") + 5
    }  # columns stand under their names


# The command


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a notebook in the place of the tour's, and a table in that of the evidence."""

    def put(*cells: Any) -> Path:
        nbformat.write(notebook_of(*cells), tmp_path / "00_tour.ipynb")
        index = pd.MultiIndex.from_tuples([("bag", "<kept>")], names=["task", "condition"])
        table = pd.DataFrame({"recall": ["0.90 [0.80, 1.00]"]}, index=index)
        monkeypatch.setattr(command, "NOTEBOOK", tmp_path / "00_tour.ipynb")
        monkeypatch.setattr(command, "evidence", lambda _: (table, "It contains <parts>."))
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return put


@pytest.mark.notebooks
def test_the_tour_runs_on_this_python_whatever_kernels_there_are(
    stage: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import sys, os, nadkit\nprint(sys.executable, nadkit.__file__, os.listdir())"
    folder = stage(nbformat.v4.new_markdown_cell("# T\n\n## Where am I"), code(source), code("1 + 1"))
    foreign = folder / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["false", "{connection_file}"], "display_name": "x"}')
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    assert command.main(["tour"]) == 0
    text = Reader((folder / "build" / "tour.html").read_text()).text("main")
    assert sys.executable in text
    assert str(Path(command.__file__).parent / "__init__.py") in text
    assert "It contains <parts>." in text
    assert "<kept>" in text
    said = capsys.readouterr()
    assert re.findall(r"cell (\d/\d)  (.*)", said.out) == [("1/2", "Where am I"), ("2/2", "Where am I")]
    assert "0.90 [0.80, 1.00]" in said.out
    assert str(folder / "build" / "tour.html") in said.out
    assert f"jupyter lab {folder / '00_tour.ipynb'}" in said.out
    assert said.err == ""


@pytest.mark.notebooks
def test_a_failing_cell_ends_the_tour_with_its_reason_and_the_page_so_far(
    stage: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import nadkit\nprint('so far')\nnadkit.load_network('resnet-fashoin')"
    folder = stage(code(source), code("print('never')"))
    assert command.main(["tour", "--out", "page.html"]) == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert "NadkitError: no bundled network 'resnet-fashoin'; closest: resnet-fashion" in said.err
    text = Reader((folder / "page.html").read_text()).text("main")
    assert "so far" in text
    assert "\nnever" not in text


@pytest.mark.notebooks
@pytest.mark.parametrize("how", ["os.kill(os.getppid(), signal.SIGINT)\ntime.sleep(9)", "os._exit(1)"])
def test_a_kernel_that_ends_is_one_line(how: str, stage: Callable[..., Path]) -> None:
    """In a process of its own, since Ctrl-C goes to the whole process."""
    folder = stage(code(f"import os, signal, time\n{how}"))
    lines = [
        "import sys, pathlib, nadkit.__main__ as command",
        f"command.NOTEBOOK = pathlib.Path({str(folder / '00_tour.ipynb')!r})",
        "sys.exit(command.main(['tour']))",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(command.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "nadkit: the tour stopped at its kernel, interrupted or short of memory" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "command.main" not in ran.stderr


def test_in_the_repository_the_tour_names_make_lab(
    stage: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stage(code("1"))
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "00_tour.ipynb").touch()
    (folder / "Makefile").touch()
    monkeypatch.setattr(command, "run_notebook", lambda _: None)
    assert command.main(["tour", "--learn"]) == 0
    assert "make lab" in capsys.readouterr().out
    assert "learned just now" in (folder / "build" / "tour.html").read_text()


def fails(error: BaseException) -> Callable[..., Any]:
    def raising(*_: Any, **__: Any) -> Any:
        raise error

    return raising


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NadkitError("no bundled masks"), "nadkit: no bundled masks"),
        (
            ImportError("No module named 'nbclient'"),
            "'nbclient'; see what is missing: python -m nadkit doctor",
        ),
        (KeyboardInterrupt(), "nadkit: stopped"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, words: str, stage: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stage(code("1"))
    monkeypatch.setattr(command, "run_notebook", fails(error))
    assert command.main(["tour"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_place_that_cannot_be_written_to_is_named_before_the_work(
    stage: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stage(code("1"))
    monkeypatch.setattr(command, "run_notebook", fails(AssertionError("it has begun")))
    (folder / "file").touch()
    for out in (folder, folder / "file" / "tour.html"):
        assert command.main(["tour", "--out", str(out)]) == 1
        assert f"cannot be written to {out}" in capsys.readouterr().err


def test_a_missing_notebook_is_named(
    stage: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stage(code("1"))
    monkeypatch.setattr(command, "NOTEBOOK", folder / "none.ipynb")
    assert command.main(["tour"]) == 1
    assert "none.ipynb is missing; reinstall nadkit" in capsys.readouterr().err
    assert not (folder / "build").exists()


@pytest.mark.parametrize("arguments", [[], ["tuor"], ["doctor", "--learn"]])
def test_an_unknown_command_shows_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert "usage: python -m nadkit" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_tour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["tour"]) == 0
    page = (tmp_path / "build" / "tour.html").read_text()
    read = Reader(page)
    assert len([tag for tag, a in read.tags if "code_cell" in str(a.get("class"))]) == 13
    labels = [str(a["aria-label"]) for _, a in read.tags if a.get("role") == "img"]
    assert len(labels) == 3
    assert all(len(label) > 40 for label in labels)
    assert "figure without a description" not in labels
    pictures = [a for tag, a in read.tags if tag == "img"]
    assert len(pictures) >= 20
    assert all(a.get("alt") and str(a["src"]).startswith("data:") for a in pictures)
    out = capsys.readouterr().out
    blocks = out.split("\n\n")
    for task in ("t-shirt", "sneaker", "ankle boot", "mean"):
        (block,) = [b for b in blocks if re.match(rf"{task} +whole ", b)]
        assert [line[11:].split()[0] for line in block.splitlines()] == list(command.CONDITIONS)
    # The notebook and the table ask the same question of the same pictures.
    assert page.count(next(line for line in out.splitlines() if line.startswith("resnet-fashion"))[:60]) == 2
