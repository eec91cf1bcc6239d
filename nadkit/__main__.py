"""`python -m nadkit tour` takes a network apart; `python -m nadkit doctor` checks an environment."""

from __future__ import annotations

import argparse
import copy
import html
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nadkit import __version__, doctor
from nadkit.errors import NadkitError

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = Path(__file__).parent
NOTEBOOK = PACKAGE / "data" / "00_tour.ipynb"
NETWORK = "resnet-fashion"
CONDITIONS = ("whole", "official", "kept", "random", "relabelled", "shared", "untrained")
FIGURE = "application/vnd.plotly.v1+json"
STATIC = re.compile(
    r"!\[[^\]]*\]\(pictures/[^)]*\)"
)  # a picture for those who open the notebook without a kernel


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command given and return its exit code: 0, or 1 with what is wrong on standard error."""
    parser = argparse.ArgumentParser(prog="python -m nadkit", description="Take a network apart by task.")
    parser.add_argument("--version", action="version", version=f"nadkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("tour", help="take a bundled network apart, write a page that shows it")
    command.add_argument("--learn", action="store_true", help="learn the ten masks afresh for the table")
    command.add_argument("--out", type=Path, default=Path("build/tour.html"), help="default: %(default)s")
    check = commands.add_parser("doctor", help="check this environment, line by line")
    check.add_argument(
        "--model", help="list the layers of one instead: torchvision:resnet50, timm:vit_tiny_…"
    )
    check.add_argument("--size", type=int, default=224, help="of its pictures, default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        if options.command == "doctor":
            if options.model is None:
                return examine()
            print(doctor.list_layers(options.model, options.size))
            return 0
        return tour(options.out, learn=options.learn)
    except NadkitError as error:
        print(f"nadkit: {error}", file=sys.stderr)
    except ImportError as error:
        print(f"nadkit: {error}; see what is missing: python -m nadkit doctor", file=sys.stderr)
    except KeyboardInterrupt:
        print("nadkit: stopped", file=sys.stderr)
    return 1


def examine() -> int:
    """Print a line for each check of this environment; return 1 if one of them failed, else 0."""
    states = []
    for state, name, text in doctor.examine():
        print(f"{state:<5} {name:<17} {text}", flush=True)
        states.append(state)
    print(f"{len(states)} checks: {states.count('FAIL')} failed, {states.count('warn')} warned")
    return 1 if "FAIL" in states else 0


# The tour


def tour(out: Path, *, learn: bool = False) -> int:
    """Execute the notebook, print the evidence table, and write both as one page that opens offline."""
    import nbformat

    started = time.perf_counter()
    if not NOTEBOOK.exists():
        raise NadkitError(f"the tour's notebook {NOTEBOOK} is missing; reinstall nadkit")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("ab").close()  # before the work, not after it
    except OSError as error:
        raise NadkitError(f"the page cannot be written to {out}: {error.strerror}; give --out") from None
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    print(f"nadkit {__version__} takes {NETWORK} apart")
    if fault := run_notebook(notebook):
        out.write_text(build_page(notebook), encoding="utf-8")
        raise NadkitError(
            f"the tour stopped at {fault}; as far as it came: {out}; check: python -m nadkit doctor"
        )
    print("  and the table, task by task", flush=True)
    table, answer = evidence(learn)
    source = "learned just now" if learn else "that come with nadkit"
    more = (
        f'<h2>The evidence, task by task</h2><p class="answer">{html.escape(answer)}</p>'
        f"<p>Masks {source}. In brackets: intervals of 95 %.</p>"
        f"{wide(table.to_html(border=0, classes='evidence', justify='left'), 'The evidence')}"
    )
    out.write_text(build_page(notebook, more), encoding="utf-8")
    print(f"\n{table_text(table)}\n\n{answer}\n\nIn {time.perf_counter() - started:.0f} s: {out.resolve()}")
    in_repository = Path("Makefile").exists() and Path("notebooks", NOTEBOOK.name).exists()
    print(f"Go on in JupyterLab: {'make lab' if in_repository else f'jupyter lab {NOTEBOOK}'}")
    return 0


def run_notebook(notebook: Any) -> str | None:
    """Execute a notebook in place on a fresh kernel of this Python; return what stopped it, or None."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    code = [place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    begun = time.perf_counter()

    def tell(cell_index: int, **_: Any) -> None:
        above = "\n".join(cell.source for cell in notebook.cells[:cell_index] if cell.cell_type == "markdown")
        title = (re.findall(r"^#+ (.*)", above, re.M) or [""])[-1]
        count = f"{code.index(cell_index) + 1}/{len(code)}"
        print(f"  {time.perf_counter() - begun:4.0f} s  cell {count}  {title}", flush=True)

    with tempfile.TemporaryDirectory(prefix="nadkit-", ignore_cleanup_errors=True) as folder:
        where = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, kernel_name="python3", resources=where, on_cell_execute=tell)
        manager: Any = client.create_kernel_manager()
        # A kernel "python3" on disk may be another environment's; without any, Jupyter starts this Python.
        manager.kernel_spec_manager.kernel_dirs = []
        manager.connection_file = str(Path(folder, "connection.json"))
        if os.name == "posix" and len(folder) < 80:  # paths of sockets are short; over TCP the kernel warns
            manager.transport, manager.ip = "ipc", str(Path(folder, "kernel"))
        environment = {**os.environ, "IPYTHONDIR": folder, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        if str(PACKAGE.parent) != sysconfig.get_path("purelib"):  # the kernel must find it there, too
            paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        try:
            client.execute(env=environment, stderr=subprocess.DEVNULL)  # cells' own comes by messages
        except CellExecutionError as error:
            return f"a cell: {error.ename}: {error.evalue}"
        except (RuntimeError, AssertionError) as error:  # nbclient asserts that it lives, also after Ctrl-C
            return f"its kernel, interrupted or short of memory. {str(error).partition(chr(10))[0]}".strip()
    return None


def evidence(learn: bool) -> tuple[pd.DataFrame, str]:
    """Return the table for the eye, with the published recipe and every control beside, and its sentence."""
    import pandas as pd

    from nadkit.images import load_images
    from nadkit.learn import learn_masks
    from nadkit.learn.bundle import pictures
    from nadkit.networks import load_masks, load_network
    from nadkit.questions import evidence_table, whether

    network, images = load_network(NETWORK), load_images("fashion", split="test", per_class=50)
    to_learn, held_back = pictures("fashion")
    masks = learn_masks(network, to_learn, kept_share=0.3) if learn else load_masks(NETWORK, kept_share=0.3)
    own = whether(network, masks, images, calibrate_on=held_back, per_class=20)
    official = load_masks(NETWORK, objective="official", kept_share=0.3)
    theirs = whether(network, official, images, calibrate_on=held_back, controls=None, draws=0, per_class=20)
    theirs = theirs[theirs["condition"] == "kept"].assign(condition="official")
    both = pd.concat([own, theirs])
    both = pd.concat([both[both["condition"] == name] for name in CONDITIONS], ignore_index=True)
    calibrated = both[both["metric"] == "balanced_accuracy_calibrated"].assign(metric="balanced_accuracy")
    table = evidence_table(both)
    table.insert(3, "calibrated", evidence_table(calibrated)["balanced_accuracy"])
    return table.fillna("–").rename(columns=lambda name: str(name).replace("_", " ")), own.attrs["answer"]


def table_text(table: pd.DataFrame) -> str:
    """Return the evidence table for a terminal of 110 columns, with an empty line before each task."""
    padded = table.apply(lambda column: column.str.ljust(column.str.len().max()))
    head, names, *rows = padded.to_string(justify="left").splitlines()
    # pandas puts the names of columns one line above those of the index, and one place left of the values.
    text = "\n".join([names.rstrip() + " " + head[len(names.rstrip()) :], *rows])
    return re.sub(r" +$", "", re.sub(r"\n(?=\S)", "\n\n", text), flags=re.M)


# The page

STYLE = """
* { box-sizing: border-box } img { max-width: 100% } a { color: #0b5cad } figure { margin: 0 }
body { margin: 0; color: #1b1f24; font: 17px/1.6 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
main { max-width: 1000px; margin: auto; padding: 24px 20px 64px } p, ul, ol { max-width: 50em }
h1, h2 { line-height: 1.25 } h2 { margin: 2em 0 .5em; padding-top: .8em; border-top: 1px solid #d8dee4 }
pre, code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace }
p code, li code { background: #f3f5f7; border-radius: 4px; padding: .1em .3em }
pre { margin: 0; padding: 9px 12px; overflow-x: auto }
.input { margin: 1em 0; border: 1px solid #d8dee4; border-radius: 6px; background: #f6f8fa }
.output_area { margin: .8em 0; overflow-x: auto } .output_area pre { white-space: pre-wrap }
.wide { overflow-x: auto } .wide .plot { min-width: 640px } .output_area, .wide { --page: #fff }
.output_area, .wide, .input pre { scrollbar-color: #6b7480 #e4e8ec; background:
  linear-gradient(to right, var(--page, #f6f8fa) 40%, transparent) 0 0 / 48px 100% no-repeat local,
  linear-gradient(to left, var(--page, #f6f8fa) 40%, transparent) 100% 0 / 48px 100% no-repeat local,
  linear-gradient(to right, #0004, transparent) 0 0 / 14px 100% no-repeat scroll,
  linear-gradient(to left, #0004, transparent) 100% 0 / 14px 100% no-repeat scroll }
.wide + .hint { display: none; margin: .2em 0; color: #57606a; font-size: 13px; text-align: right }
@media (max-width: 679px) { .wide:has(.plot) + .hint { display: block } }
@media (max-width: 920px) { .wide:has(table) + .hint { display: block } }
.output_stdout pre, .answer { border-left: 4px solid #0b5cad; background: #eef4fb; padding: 9px 12px }
.output_error pre, .output_stderr pre { border-left: 4px solid #b3261e; background: #fdf0ef }
.k, .kn, .kc, .ow { color: #8a1f6d } .s1, .s2, .sa { color: #0a5c2b } .c1 { color: #57606a }
.output_html, figcaption, footer { font-size: 14px } figcaption, footer { color: #57606a }
table { border: 0; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
main tr > * { padding: 3px 16px 3px 0; vertical-align: top; white-space: nowrap; border: 0; line-height: 1.4 }
main tr, main th { text-align: left !important }
main thead th { border-bottom: 2px solid #d8dee4 } [rowspan], [rowspan] ~ * { border-top: 1px solid #d8dee4 }
"""
HINT = '<p class="hint" aria-hidden="true">wider than the page: scroll sideways ⟷</p>'
# Nothing may be loaded from anywhere, so that the page shows the same offline and in ten years.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def build_page(notebook: Any, more: str = "") -> str:
    """Return an executed notebook, and more HTML after it, as one page that loads nothing."""
    from nbconvert import HTMLExporter

    shown = copy.deepcopy(notebook)
    for cell in (cell for cell in shown.cells if cell.cell_type == "markdown"):
        cell.source = STATIC.sub("", cell.source)  # it stands for the figures that the page has itself
    for output in (output for cell in shown.cells for output in cell.get("outputs", [])):
        if FIGURE in output.get("data", {}):
            output.data = {"text/html": figure_html(output.data[FIGURE])}
    settings = {"template_name": "basic", "exclude_input_prompt": True, "exclude_output_prompt": True}
    exporter = HTMLExporter(**settings)  # type: ignore[no-untyped-call]
    body = re.sub(r'<a class="anchor-link".*?</a>', "", exporter.from_notebook_node(shown)[0]) + more
    title = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.S)
    library = resources.files("plotly") / "package_data" / "plotly.min.js"
    script = library.read_text(encoding="utf-8") if 'class="plot"' in body else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{re.sub('<.*?>', '', title[1]) if title else 'nadkit'}</title>\n"
        f"<style>{STYLE}</style>\n<script>{script}</script></head>\n<body><main>\n{body}\n"
        f"<footer>nadkit {__version__}, {time.strftime('%Y-%m-%d')}</footer></main></body></html>\n"
    )


def wide(content: str, name: str) -> str:
    """Return content that scrolls sideways where the page is narrower, and says so."""
    said = f"{name}; it scrolls sideways where the page is narrow"
    return f'<div class="wide" role="group" aria-label="{said}" tabindex="0">{content}</div>{HINT}'


def figure_html(figure: Mapping[str, Any]) -> str:
    """Return a figure that the page's one copy of plotly.js draws, with the words in its `layout.meta`."""
    layout = {key: value for key, value in figure["layout"].items() if key != "width"}
    alt = html.escape(str((layout.get("meta") or {}).get("alt") or "figure without a description"))
    parts = (figure["data"], layout, {"responsive": True, "displayModeBar": False})
    drawn = ", ".join(json.dumps(part).replace("</", "<\\/") for part in parts)
    plot = (
        f'<div class="plot" role="img" aria-label="{alt}"></div>'
        f"<script>Plotly.newPlot(document.currentScript.previousElementSibling, {drawn})</script>"
    )
    return f"<figure>{wide(plot, 'Figure')}<figcaption>{alt}</figcaption></figure>"


if __name__ == "__main__":
    sys.exit(main())
