"""What a test drives: a notebook in a real front end, or a widget's JavaScript alone in a blank page."""

from __future__ import annotations

import ast
import base64
import itertools
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page
try:
    from playwright.sync_api import Error, expect
except ImportError:  # the fixture `chromium` skips every test, and says why
    Error = expect = None  # type: ignore[assignment, misc]

__all__ = ["Blank", "Error", "Lab", "expect", "notebook_page", "violations", "watched_page"]

HERE = Path(__file__).parent
HARNESS = (HERE / "harness.js").read_text()
PATIENCE = 120.0  # seconds; generous, since a busy machine is no fault
VIEW = {"width": 1200, "height": 1500}
if expect is not None:
    expect.set_options(timeout=PATIENCE * 1000 / 4)

# What axe-core finds in widgets that are not ours: ipywidgets 8.1.9 gives a slider's handle no name.
KNOWN_FAULTS = frozenset({"aria-input-field-name"})
RULES = ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]

fresh = itertools.count(1)


@contextmanager
def watched_page(chromium: Browser, allowed: str) -> Iterator[Page]:
    """A page that reaches only addresses beginning with `allowed`.

    Other requests are aborted and recorded in `page.external`, uncaught errors of other code than the front
    end's own in `page.js_errors`; both must be empty at the end. A test that means to cause one looks at it
    and clears the list.
    """
    # Service workers would make requests that no route sees.
    context = chromium.new_context(viewport=VIEW, service_workers="block")  # type: ignore[arg-type]
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        external: list[str] = []
        js_errors: list[str] = []
        page.external, page.js_errors = external, js_errors  # type: ignore[attr-defined]
        block(context, allowed, external)
        page.on("pageerror", lambda error: js_errors.extend([str(error)] * not_the_front_ends(error)))
        yield page
        # Before the page closes: what a front end says when its kernel goes is not the test's affair.
        assert external == [], f"asked for by the page: {external}"
        assert js_errors == [], f"errors in the page: {js_errors}"
    finally:
        context.close()


def not_the_front_ends(error: Error) -> bool:
    """Whether some line of an error's stack lies outside the front end's own bundles.

    Notebook 7.6.5 always trips over a schema, now and then over a command of the file browser.
    """
    frames = re.findall(r"https?://[^\s)]+", error.stack or "")
    return not frames or any("/static/" not in frame for frame in frames)


def block(context: BrowserContext, allowed: str, external: list[str]) -> None:
    """Abort and record all requests but those to `allowed`; record WebSockets, too."""

    def refuse(route: Any) -> None:
        external.append(route.request.url)
        route.abort()

    def note(socket: Any) -> None:
        if not re.sub("^ws", "http", socket.url).startswith(allowed):
            external.append(socket.url)  # the browser resolves no foreign name, so that it stays an attempt

    context.route(re.compile(rf"^(?!{re.escape(allowed)}|data:|blob:|about:)"), refuse)
    for page in context.pages:
        page.on("websocket", note)
    context.on("page", lambda page: page.on("websocket", note))


def violations(page: Page, axe: Path, include: str = "body", known: Collection[str] = ()) -> list[str]:
    """What axe-core objects to inside the elements `include`, as "rule: the element's HTML"."""
    if not page.evaluate("() => Boolean(window.axe)"):
        page.evaluate(axe.read_text())
    found = page.evaluate(
        "([include, runOnly]) => axe.run({include: [[include]]}, {runOnly, resultTypes: ['violations']})",
        [include, RULES],
    )["violations"]
    return [
        f"{fault['id']}: {node['html'][:160]}"
        for fault in found
        if fault["id"] not in known
        for node in fault["nodes"]
    ]


# A notebook in JupyterLab or Notebook 7

# `panel` is the open notebook; a promise that never settles would hang the test, so each has its limit.
IN_THE_APP = """async ([body, arg, limit]) => {
    const panel = () => [...window.jupyterapp.shell.widgets('main')].find(w => w.context && w.sessionContext);
    const work = new (async () => {}).constructor('panel', 'arg', body)(panel, arg);
    const late = new Promise(done => setTimeout(done, limit * 1000)).then(() => {
        throw new Error(`not done in ${limit} s`);
    });
    return Promise.race([work, late]);
}"""
OPENED = """() => Boolean(window.jupyterapp?.shell && [...window.jupyterapp.shell.widgets('main')]
    .find(w => w.context?.isReady && w.sessionContext?.session?.kernel))"""
READY = "const p = panel(); await p.context.ready; await p.sessionContext.ready; await p.revealed;"
RUN_ALL = """
    const done = await window.jupyterapp.commands.execute('notebook:run-all-cells');
    const cells = panel().content.model.toJSON().cells.flatMap(cell => cell.outputs || []);
    const errors = cells.filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`);
    return [done, errors];"""
ASK = """
    const kernel = panel().sessionContext.session.kernel;
    const request = {code: arg[0], silent: true, store_history: false, user_expressions: arg[1]};
    return (await kernel.requestExecute(request).done).content;"""


class Lab:
    """One page of JupyterLab (`path` "lab/tree") or Notebook 7 ("notebooks")."""

    def __init__(self, page: Page, server: Server, path: str) -> None:
        self.page, self.server, self.path = page, server, path
        self.opened: set[str] = set()

    def write(self, *sources: str) -> str:
        """The name of a new notebook with these code cells."""
        cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        name = f"notebook-{next(fresh)}.ipynb"
        nbformat.write(notebook, self.server.folder / name)
        return name

    def open(self, name: str) -> Lab:
        """Show a notebook of the server's folder and wait for it and its kernel."""
        self.opened.add(name)
        address = f"{self.server.base}/{self.path}/{name}?token={self.server.token}"
        self.page.goto(address + "&reset" * self.path.startswith("lab"))  # without the tabs of other tests
        self.page.wait_for_function(OPENED)
        self.inside(READY)
        return self

    def run_all(self, limit: float = 300) -> Lab:
        """Run all cells and wait for the last; an error in a cell fails the test."""
        done, errors = self.inside(RUN_ALL, limit=limit)
        assert errors == [], errors
        assert done
        return self

    def py(self, expression: str) -> Any:
        """The value of a Python expression in the notebook's kernel; it must fit JSON."""
        answer = self.ask("", value=f"__import__('json').dumps({expression})")["value"]
        assert answer["status"] == "ok", f"{expression}: {answer.get('ename')}: {answer.get('evalue')}"
        return json.loads(ast.literal_eval(answer["data"]["text/plain"]))

    def do(self, code: str) -> None:
        """Run Python statements in the notebook's kernel, outside any cell."""
        self.ask(code)

    def until(self, expression: str, value: object, patience: float = PATIENCE) -> None:
        """Wait until a Python expression has this value: a front end may hold a change back for a while."""
        for _ in range(int(patience / 0.1)):
            if (found := self.py(expression)) == value:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{expression} is {found!r}, not {value!r}, after {patience:g} s")

    def output(self, number: int) -> Locator:
        """The output area of a code cell, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".jp-Cell-outputArea")

    def cells(self) -> int:
        """How many cells there are: command mode, which takes plain keys, would insert or delete some."""
        return self.page.locator(".jp-Notebook .jp-Cell").count()

    def theme(self, name: str) -> Lab:
        """Change the theme, for instance to "JupyterLab Dark"."""
        self.inside("await window.jupyterapp.commands.execute('apputils:change-theme', {theme: arg})", name)
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
        return self

    def ask(self, code: str, **expressions: str) -> Any:
        answer = self.inside(ASK, [code, expressions])
        assert answer["status"] == "ok", f"{answer.get('ename')}: {answer.get('evalue')}"
        return answer["user_expressions"]

    def inside(self, body: str, arg: object = None, limit: float = PATIENCE) -> Any:
        """What JavaScript `body`, an async function's, returns in the page; `panel()` is the notebook."""
        return self.page.evaluate(IN_THE_APP, [body, arg, limit])


@contextmanager
def notebook_page(chromium: Browser, server: Server, path: str = "lab/tree") -> Iterator[Lab]:
    """A page of its own; its kernels stop with it. For fixtures that keep one notebook for many tests."""
    with watched_page(chromium, f"{server.base}/") as page:
        lab = Lab(page, server, path)
        try:
            yield lab
        finally:
            for name in lab.opened:
                server.stop_kernels(name)


# A widget's JavaScript alone

BLANK = "http://localhost/blank"  # answered by the test itself; localhost counts as a secure address
PAGE = """<!doctype html><html lang="en">
<head><meta charset="utf-8"><title>blank</title><style>%s</style></head>
<body><main><h1>blank</h1><div id="root"></div></main></body></html>"""


def packed(value: Any) -> Any:
    """JSON of a value that may hold bytes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {name: packed(inner) for name, inner in value.items()}
    return [packed(inner) for inner in value] if isinstance(value, list | tuple) else value


def unpacked(value: Any) -> Any:
    """The value of which `packed` made this."""
    if isinstance(value, dict):
        if set(value) == {"$bytes"}:
            return base64.b64decode(value["$bytes"])
        return {name: unpacked(inner) for name, inner in value.items()}
    return [unpacked(inner) for inner in value] if isinstance(value, list) else value


class Blank:
    """A widget's JavaScript in a blank page, on a fake model that remembers what it was told."""

    def __init__(self, page: Page, esm: str, state: dict[str, Any], css: str) -> None:
        self.page = page
        page.route(BLANK, lambda route: route.fulfill(body=PAGE % css, content_type="text/html"))
        page.goto(BLANK)
        page.evaluate(HARNESS)
        self.call("mount", esm, state)

    def call(self, name: str, *values: Any) -> Any:
        code = "([name, values]) => harness[name](...values)"
        return unpacked(self.page.evaluate(code, [name, packed(list(values))]))

    def get(self, name: str) -> Any:
        """A trait's value, as the JavaScript left it."""
        return self.call("get", name)

    def put(self, **traits: Any) -> None:
        """Set traits as Python would: `change:...` events follow, nothing is saved."""
        self.call("put", traits)

    def receive(self, content: Any, *buffers: bytes) -> None:
        """Send the JavaScript a custom message, as Python's `widget.send` does."""
        self.call("receive", content, list(buffers))

    def trigger(self, event: str, *values: Any) -> None:
        """Fire any event of the model."""
        self.call("trigger", event, list(values))

    def saved(self) -> list[dict[str, Any]]:
        """What each `save_changes` told Python: the traits that were set since the one before."""
        return list(self.call("saved"))

    def sent(self) -> list[Any]:
        """The contents of the custom messages to Python."""
        return [message["content"] for message in self.call("sent")]

    def buffers(self) -> list[list[bytes]]:
        """The buffers of the custom messages to Python."""
        return [message["buffers"] for message in self.call("sent")]

    def listeners(self) -> list[str]:
        """The model's events that somebody listens to, one entry a listener."""
        return list(self.call("listeners"))

    def show(self) -> None:
        """Mount a second view of the same model below the first."""
        self.call("show")

    def cleanup(self) -> None:
        """Take all views down, as Jupyter does when outputs are cleared."""
        self.call("cleanup")
