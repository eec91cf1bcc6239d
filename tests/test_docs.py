"""The documentation: built without a warning, whole, complete, and asking nobody else for anything."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import nadkit
from nadkit import figures

pytest.importorskip("sphinx", reason="the documentation is built with sphinx: make install")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
from docutils import nodes, utils  # noqa: E402 - comes with sphinx
from launch import BLOCK, Launch, with_links  # noqa: E402 - beside the pages, not in the package
from make import EXECUTED, notebooks, page_of, relinked  # noqa: E402
from running import PLOTLY, WIDGET, drawn, executed, notebook_of, snippets  # noqa: E402

sys.path.append(str(DOCS / "_sphinx"))
from docstrings import as_numpydoc, process, release  # noqa: E402
from fitting import fit, is_prose  # noqa: E402

NAMESPACES = [name for name, home in nadkit._HOMES.items() if home is None]
PROSE = [path for folder in ("how-to", "explanation") for path in sorted((DOCS / folder).glob("*.md"))]
SET = Launch("owner/name", "v1.2.3")


class Page(HTMLParser):
    """What a page holds: ids, links, and what the browser loads for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.plots: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := found.get(name))}
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if tag == "link" and found.get("rel") not in {
            "index",
            "search",
            "next",
            "prev",
            "author",
            "copyright",
        }:
            self.loads.append(str(found.get("href")))
        self.loads += [
            str(found[name]) for name in ("src", "poster", "data") if found.get(name) and tag != "a"
        ]
        self.loads += re.findall(r"url\(([^)]+)\)", found.get("style") or "")
        if tag == "img":
            self.pictures.append(found)
        if "nadkit-plot" in (found.get("class") or "").split():
            self.plots.append(found.get("aria-label") or "")


@pytest.fixture(scope="module")
def site(built_docs: Path) -> dict[str, Page]:
    """Every page of the documentation, by its path."""
    found = {
        path.relative_to(built_docs).as_posix(): Page(path.read_text())
        for path in sorted(built_docs.rglob("*.html"))
        if "_static" not in path.parts
    }
    assert len(found) > 30
    return found


# The built pages


@pytest.mark.slow
def test_links_and_anchors_lead_somewhere(site: dict[str, Page], built_docs: Path) -> None:
    lost = []
    for name, page in site.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (built_docs / name).parent.joinpath(path).resolve() if path else built_docs / name
            if not target.is_file():
                lost.append(f"{name}: {link}")
            elif anchor and target.suffix == ".html":
                there = site[target.relative_to(built_docs.resolve()).as_posix()] if path else page
                lost += [f"{name}: {link}"] * (anchor not in there.ids)
    assert lost == []


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: dict[str, Page], built_docs: Path) -> None:
    foreign = [f"{name}: {load}" for name, page in site.items() for load in page.loads if is_foreign(load)]
    assert foreign == []
    for sheet in built_docs.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(), flags=re.S)
        loads = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
        assert [f"{sheet.name}: {load}" for pair in loads for load in pair if is_foreign(load)] == []


@pytest.mark.slow
def test_every_public_name_has_its_place_in_the_reference(site: dict[str, Page]) -> None:
    ids = {name for path, page in site.items() if path.startswith("reference/") for name in page.ids}
    wanted = [f"nadkit.{name}" for name in nadkit.__all__]
    for space in NAMESPACES:
        module = getattr(nadkit, space)
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        homes = {name: nadkit._HOMES.get(name) for name in names}
        # `nk.extract` is also `nk.graph.extract`: it stands there once, by its shorter name.
        wanted += [f"nadkit.{name}" if homes[name] == space else f"nadkit.{space}.{name}" for name in names]
    assert [name for name in wanted if not {name, f"module-{name}"} & ids] == []


MISREAD = {
    "a field of a tuple without words": r"Alias for field number",
    "code that lost its <part>": r"<code[^>]*>(?:<[^>]*>)*[^<]*:(?:</span>)*</code>",
    "the first words of a property, taken for its type": r"<dt[^>]*>Type<",
    "a name, taken for the type of the next": r"<em>\w+,</em>",
    "the words of a built-in type": "|".join(
        re.escape(kind.__doc__.splitlines()[0]) for kind in (tuple, list, dict, set, frozenset, str, int)
    ),
}  # fmt: skip


def misread(text: str) -> list[str]:
    """What a page of the reference shows that no docstring says, in words."""
    return [f"{what}: {found[0][:90]}" for what, sign in MISREAD.items() for found in re.finditer(sign, text)]


@pytest.mark.slow
def test_the_reference_reads_docstrings_as_they_are_meant(built_docs: Path) -> None:
    pages = sorted((built_docs / "reference").glob("*.html"))
    assert len(pages) > 10
    assert {page.name: found for page in pages if (found := misread(page.read_text()))} == {}
    graphs = (built_docs / "reference" / "graphs.html").read_text()
    assert "logit:&lt;task&gt;" in graphs
    assert "The layers at which the flow is cut:" in graphs


def test_signs_of_a_docstring_that_was_misread() -> None:
    for bad in (
        "<dd><p>Alias for field number 0</p></dd>",
        '<code class="xref py py-obj"><span class="pre">logit:</span></code>',
        '<dt class="field-odd">Type<span class="colon">:</span></dt>',
        "<strong>other_task</strong> (<em>task,</em>)",
        "<p>Built-in immutable sequence.</p>",
    ):
        assert len(misread(bad)) == 1, bad
    assert misread('<code><span class="pre">a:b</span></code> <em>task</em>, <dt>Returns</dt>') == []


@pytest.mark.slow
def test_pictures_have_words(site: dict[str, Page]) -> None:
    silent = [
        f"{name}: {str(picture.get('src'))[:60]}"
        for name, page in site.items()
        for picture in page.pictures
        if not (picture.get("alt") or "").strip()
    ]
    assert silent == []


@pytest.mark.slow
def test_the_gallery_shows_every_figure_with_words(site: dict[str, Page]) -> None:
    drawn_here = re.findall(r"nk\.figures\.(\w+)\(", "".join(snippets((DOCS / "gallery.md").read_text())))
    functions = [name for name in figures.__all__ if inspect.isfunction(getattr(figures, name))]
    assert sorted(drawn_here) == sorted(functions)
    plots = site["gallery.html"].plots
    assert len(plots) == len(functions)
    assert len(set(plots)) == len(plots)
    assert min(map(len, plots)) > 40


@pytest.mark.slow
def test_every_lesson_and_page_is_built_and_found(site: dict[str, Page], built_docs: Path) -> None:
    for path in notebooks():
        name = Path(path).stem
        assert f"tutorials/{name}.html" in site
        assert (built_docs / "downloads" / f"{name}.ipynb").read_bytes() == (ROOT / path).read_bytes()
    for path in DOCS.rglob("*.md"):
        name = path.relative_to(DOCS).with_suffix(".html").as_posix()
        assert name in site or name.startswith("_"), f"{path.name} is on no page"
    index = (built_docs / "searchindex.js").read_text()
    assert "sub-architectur" in index or "architectur" in index


def is_foreign(address: str) -> bool:
    return re.match(r"(https?:)?//", address.strip().strip("'\"")) is not None


# Words


@pytest.mark.parametrize(
    "path", [*PROSE, DOCS / "gallery.md", DOCS / "results.md"], ids=lambda path: path.stem
)
def test_words_that_nadkit_does_not_use(path: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)|^    .*$", "", path.read_text(), flags=re.S | re.M)
    words = re.findall(r"\b(?:labels?|concepts?|filters?|nodes?|subnetworks?|circuits?)\b", text, re.I)
    # Pictures have labels, in the sense of a dataset.
    assert [word for word in words if path.stem != "own-pictures" or not word.startswith("label")] == []


def misspelt(*places: Path) -> str:
    # The folder that lesson 10 misspells on purpose.
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", "expresso", *map(str, places)]
    skipped = ["--skip", "*.csv,*.png,*.safetensors,*.js,data,_build,__pycache__"]
    return subprocess.run([*command, *skipped], capture_output=True, text=True, timeout=120).stdout


def test_words_are_spelt_as_they_are(tmp_path: Path) -> None:
    places = [DOCS, ROOT / "notebooks", ROOT / "nadkit", *ROOT.glob("*.md")]
    assert misspelt(*places) == ""
    wrong = tmp_path / "page.md"
    wrong.write_text("The netwrok has recieved a mask.")
    assert len(misspelt(wrong).splitlines()) == 2


def test_per_cent_is_written_in_one_way() -> None:
    """`84 %`, never `84%`: neither in prose, nor by a format that leaves the space out."""
    prose = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    code = [
        *(ROOT / "notebooks").glob("*.ipynb"),
        *(ROOT / "nadkit").rglob("*.py"),
        *ROOT.rglob("benchmarks/*.py"),
    ]
    signs = [(path, r"\d%(?![0-9A-F]{2})") for path in prose] + [(path, r":\.\d%\}") for path in code]
    found = [
        f"{path.name}: {sign}"
        for path, wrong in signs
        if "_build" not in path.parts
        for sign in re.findall(wrong, path.read_text())
    ]
    assert found == []
    assert re.findall(signs[0][1], "84% of 84 % in a%20b") == ["4%"]
    assert re.findall(signs[-1][1], "{share:.0%}") == [":.0%}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",  # building the pages runs the others, and ends where a line of theirs does
    [p for p in PROSE if snippets(p.read_text()) and p.relative_to(DOCS).as_posix() not in EXECUTED],
    ids=lambda path: path.stem,
)
def test_the_examples_of_a_page_run_one_after_the_other(path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "\n".join(snippets(path.read_text()))]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr


# Links from one setting


def test_the_readme_has_the_links_of_the_setting() -> None:
    text = (ROOT / "README.md").read_text()
    assert BLOCK.search(text)
    assert with_links(text, Launch.of()) == text, "run: python docs/launch.py"


def test_without_a_repository_there_are_no_links() -> None:
    unset = Launch("", "v1.2.3")
    assert unset.readme() == ""
    assert "http" not in unset.lesson("notebooks/00_tour.ipynb")
    assert "[tool.nadkit]" in unset.table({"notebooks/00_tour.ipynb": "Tour"})
    assert "http" not in relinked("[x](../tests/conftest.py)", "docs/results.md", "results.md", unset)


def test_links_with_a_repository() -> None:
    binder = "https://mybinder.org/v2/gh/owner/name/v1.2.3?urlpath=lab%2Ftree%2Fnotebooks%2F04_whether.ipynb"
    colab = "https://colab.research.google.com/github/owner/name/blob/v1.2.3/notebooks/04_whether.ipynb"
    assert SET.binder("notebooks/04_whether.ipynb") == binder
    assert SET.colab("notebooks/04_whether.ipynb") == colab
    for text in (
        SET.lesson("notebooks/04_whether.ipynb"),
        SET.table({"notebooks/04_whether.ipynb": "Whether"}),
    ):
        assert f"({binder})" in text
        assert f"({colab})" in text
    assert SET.binder() in with_links("a\n<!-- launch -->\nold\n<!-- /launch -->\nb", SET)
    assert "old" not in with_links("a\n<!-- launch -->\nold\n<!-- /launch -->\nb", SET)


@pytest.mark.parametrize("bad", ["https://github.com/owner/name", "owner", "owner/na me", "owner/name/"])
def test_a_setting_that_would_make_dead_links_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="owner/name"):
        Launch(bad, "v1")


def test_no_other_file_names_the_repository() -> None:
    """A link typed by hand would stay wrong when the setting changes."""
    address = re.compile(r"mybinder\.org/v2|colab\.research\.google\.com/github")
    texts = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *DOCS.rglob("*.md"),
        *(ROOT / "notebooks").glob("*.ipynb"),
    ]
    if not Launch.of().repository:
        assert [
            path.name for path in texts if "_build" not in path.parts and address.search(path.read_text())
        ] == []


# How pages are made


def test_links_inside_the_project_lead_to_pages() -> None:
    def to(text: str, origin: str, here: str) -> str:
        return relinked(text, origin, here, SET)

    assert to("[a](docs/vocabulary.md)", "README.md", "index.md") == "[a](vocabulary.md)"
    assert to("![a](docs/tour.png)", "README.md", "index.md") == "![a](tour.png)"
    assert to("[a](notebooks)", "README.md", "index.md") == "[a](tutorials/index.md)"
    assert to("[a](../README.md#more)", "docs/results.md", "results.md") == "[a](index.md#more)"
    lesson = to("[a](../docs/vocabulary.md)", "notebooks/00_tour.ipynb", "tutorials/00_tour.ipynb")
    assert lesson == "[a](../vocabulary.md)"
    assert to("[a](https://x.org) [b](#c)", "README.md", "index.md") == "[a](https://x.org) [b](#c)"
    assert to("[a](tests/conftest.py)", "README.md", "index.md").endswith("/blob/v1.2.3/tests/conftest.py)")
    code = "```\n[a](docs/vocabulary.md)\n```"
    assert to(code, "README.md", "index.md") == code
    assert page_of(DOCS / "make.py") == "make.py"


def test_a_page_becomes_a_notebook_of_its_blocks() -> None:
    text = "# T\n\n```python\nx = 1\n```\n\nwords\n\n```\nno\n```\n\n```python\ny = 2\n```\n"
    cells = [(cell.cell_type, cell.source) for cell in notebook_of(text).cells]
    assert [kind for kind, _ in cells] == ["markdown", "code", "markdown", "code"]
    assert (
        [source for kind, source in cells if kind == "code"]
        == ["x = 1", "y = 2"]
        == [block.strip() for block in snippets(text)]
    )


def test_outputs_become_what_a_page_without_a_kernel_shows() -> None:
    notebook = notebook_of("```python\nx\n```\n")
    figure = {"data": [{"y": ["</script>"]}], "layout": {"meta": {"alt": 'A "line" < b'}, "height": 300}}
    notebook.cells[0].outputs = [
        {"output_type": "display_data", "metadata": {}, "data": {PLOTLY: figure}},
        {"output_type": "display_data", "metadata": {}, "data": {WIDGET: {}, "text/plain": "VBox()"}},
    ]
    plot, widget = (output["data"] for output in drawn(notebook).cells[0].outputs)
    assert list(plot) == list(widget) == ["text/html"]
    assert Page(plot["text/html"]).plots == ['A "line" < b']
    assert plot["text/html"].count("</script>") == 1
    assert "needs a notebook" in widget["text/html"]
    bar = "one-vs-rest: 100%|###| 20/20"
    notebook.cells[0].outputs = [
        {"output_type": "stream", "name": "stderr", "text": bar},
        {"output_type": "stream", "name": "stdout", "text": "kept  30%|"},
        *({"output_type": "display_data", "metadata": {}, "data": {WIDGET: {}, "text/plain": text}}
          for text in (bar, "Panel(1)", "Panel(1)")),  # one widget, shown twice
    ]  # fmt: skip
    said, live = drawn(notebook).cells[0].outputs
    assert said["text"] == "kept  30%|"
    assert "needs a notebook" in live["data"]["text/html"]


def test_names_of_measures_may_be_broken_in_the_heads_of_tables() -> None:
    table = '<table class="dataframe"><th id="a_b">hit_rate_step</th><td>mask_seeds</td></table>'
    notebook = notebook_of("```python\n1\n```\n")
    notebook.cells[0].outputs = [{"output_type": "display_data", "data": {"text/html": table}}]
    assert drawn(notebook).cells[0].outputs[0]["data"]["text/html"] == table.replace(
        "hit_rate_step", "hit_<wbr>rate_<wbr>step"
    )


def test_tables_are_broken_after_underscores_and_never_within_a_number() -> None:
    def cell(text: str) -> str:
        document = utils.new_document("page")
        entry = nodes.paragraph("", text)
        document += nodes.table("", nodes.entry("", entry))
        fit(None, document, "page")
        return "".join(part.astext() for part in entry.children)

    assert cell("drop_own of __init__") == "drop_<wbr>own of __init__"
    assert cell("0.99 [0.98, 1.00]") == "0.99 [0.98,\xa01.00]"
    assert cell("13.5 s") == "13.5\xa0s"
    assert cell("1 of its own") == "1 of its own"


def test_sentences_are_wrapped_and_columns_are_not() -> None:
    assert is_prose("keeping 30 % of the units solves the task. It does not show more.\nTrue")
    assert not is_prose("layer    units\nstem        24")
    assert not is_prose("stem\n  24 units")


def test_a_picture_stands_in_for_its_widget() -> None:
    notebook = notebook_of("```python\nx\n```\n")
    still = {"text/html": '<figure class="nadkit-still-1"><img alt="a" src="data:x"></figure>'}
    widget = {WIDGET: {}, "text/plain": "Explorer()"}
    notebook.cells[0].outputs = [
        {"output_type": "display_data", "metadata": {}, "data": data} for data in (still, widget)
    ]
    assert [output["data"] for output in drawn(notebook).cells[0].outputs] == [still]


def test_a_run_is_kept_until_a_cell_changes(tmp_path: Path, count_runs: Callable[[], list[str]]) -> None:
    first = executed(notebook_of("a\n\n```python\nprint(1)\n```\n"), "page", tmp_path)
    assert first.cells[1].outputs[0]["text"] == "1\n"
    again = executed(notebook_of("other words\n\n```python\nprint(1)\n```\n"), "page", tmp_path)
    assert (again.cells[0].source, again.cells[1].outputs[0]["text"]) == ("other words", "1\n")
    assert len(count_runs()) == 1
    assert (
        executed(notebook_of("a\n\n```python\nprint(2)\n```\n"), "page", tmp_path).cells[1].outputs[0]["text"]
        == "2\n"
    )
    assert len(count_runs()) == 2
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def count_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    import nbclient

    runs: list[str] = []
    execute = nbclient.NotebookClient.execute

    def counted(self: nbclient.NotebookClient) -> object:
        runs.append("run")
        return execute(self)

    monkeypatch.setattr(nbclient.NotebookClient, "execute", counted)
    # Set by the code under test; given back by the fixture.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return lambda: runs


def test_what_follows_a_name_in_a_docstring_is_no_type() -> None:
    lines = ["Do.", "", "Parameters", "----------", "a : the first", "    and more", "b", "    as it is", ""]
    lines += ["Returns", "-------", "x : y"]
    made = as_numpydoc(lines)
    assert made[4:8] == ["a", "    the first", "    and more", "b"]
    assert made[-1] == "x : y"


def shown_of(docstring: str, what: str) -> str:
    """What Sphinx gets of a docstring, napoleon between our two steps."""
    from sphinx.ext.napoleon import Config, NumpyDocstring

    lines = docstring.splitlines()
    process(None, what, "it", None, None, lines)
    lines = NumpyDocstring(lines, Config(napoleon_use_ivar=True), what=what, name="it").lines()
    release(None, what, "it", None, None, lines)
    return "\n".join(lines).strip()


def test_the_first_line_of_a_property_is_all_shown() -> None:
    text = "Where it ends: at `a` or, later: at b.\n\nMore: words."
    assert shown_of(text, "property") == text
    assert ":param a: the first: one" in shown_of(
        "D.\n\nParameters\n----------\na : the first: one", "function"
    )


def test_code_with_a_part_in_angles_is_no_link() -> None:
    said = shown_of("Nodes are `input` and `logit:<task>`.", "class")
    assert said == "Nodes are `input` and ``logit:<task>``."
    for kept in ("``a<b>``", "`a` < `b` > c", ":ref:`words <place>`"):
        assert shown_of(kept, "class") == kept


# Binder


@pytest.mark.slow
def test_repo2docker_reads_the_repository(tmp_path: Path) -> None:
    """The dry run needs no container engine: it writes the Dockerfile that Binder would build."""
    command = Path(sys.executable).with_name("jupyter-repo2docker")
    if not command.exists():
        pytest.skip("jupyter-repo2docker is not installed: make install")
    for name in ("environment.yml", "postBuild", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    ran = subprocess.run(
        [command, "--no-build", "--debug", "--no-run", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "Building conda environment for python=3.11" in said
    assert '--file "environment.yml"' in said
    assert "RUN ./postBuild" in said
    layers = (
        said.index('--file "environment.yml"'),
        said.index("COPY --chown=0:0 src/ "),
        said.index("./postBuild"),
    )
    assert list(layers) == sorted(layers), "the slow layer must precede the copy of the repository"


def test_fractions_are_written_so_that_mathml_has_two_parts() -> None:
    """The converter reads `\\frac12` and `\\tfrac12` as one number."""
    texts = [*DOCS.rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    bare = re.compile(r"\\+[td]?frac(?!\{)")
    assert [path.name for path in texts if "_build" not in path.parts and bare.search(path.read_text())] == []
    assert bare.search(r"\tfrac12")
