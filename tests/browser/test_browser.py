"""The browser tests' own tools: what they drive, what they read back, and what they notice."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pages import (
    BLANK,
    KNOWN_FAULTS,
    Blank,
    Error,
    Lab,
    expect,
    notebook_page,
    packed,
    unpacked,
    violations,
    watched_page,
)
from server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A button that counts, a line that Python can write, a message each way.
ESM = """
function render({ model, el }) {
  const button = el.appendChild(document.createElement("button"));
  const line = el.appendChild(document.createElement("p"));
  const draw = () => { button.textContent = `pressed ${model.get("count")} times`; };
  const hear = (content, buffers) => { line.textContent = `${content.say}: ${buffers[0].getUint8(1)}`; };
  button.addEventListener("click", () => {
    model.set("count", model.get("count") + 1);
    model.save_changes();
    model.send({ pressed: model.get("count") }, undefined, [new Uint8Array([7, 8]).buffer]);
  });
  // Else command mode takes plain keys. Notebook 7 looks at them before any listener here could stop them.
  button.dataset.lmSuppressShortcuts = "true";
  model.on("change:count", draw);
  model.on("msg:custom", hear);
  draw();
  return () => { model.off("change:count", draw); model.off("msg:custom", hear); };
}
export default { render };
"""
CORE = """
import ipywidgets
layer = ipywidgets.Dropdown(options=["conv1", "conv2", "fc"], description="layer")
label = ipywidgets.Label("conv1")
layer.observe(lambda change: setattr(label, "value", f"chosen: {change.new}"), "value")
top = ipywidgets.IntSlider(value=3, min=1, max=9, description="top")
ipywidgets.VBox([layer, label, top])
"""
OWN = f"""
import anywidget, traitlets
class Counter(anywidget.AnyWidget):
    _esm = {ESM!r}
    count = traitlets.Int(0).tag(sync=True)
counter, heard = Counter(), []
counter.on_msg(lambda widget, content, buffers: heard.append([content, list(bytes(buffers[0]))]))
counter
"""


# A notebook in a real front end


def test_widgets_answer_to_mouse_keys_and_python(either: Lab, axe: Path, shots: Path) -> None:
    lab, page = either, either.page
    lab.open(lab.write(CORE, OWN)).run_all()
    choice, button = lab.output(0).locator("select"), lab.output(1).get_by_role("button")

    choice.select_option("fc")
    expect(lab.output(0).get_by_text("chosen: fc")).to_be_visible()
    assert lab.py("layer.value") == "fc"
    choice.focus()
    page.keyboard.press("Home")  # command mode takes letters and arrows from the widgets of ipywidgets
    expect(lab.output(0).get_by_text("chosen: conv1")).to_be_visible()

    button.click()
    expect(button).to_have_text("pressed 1 times")
    cells = lab.cells()
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("b")  # in command mode: insert a cell
    expect(button).to_have_text("pressed 2 times")
    lab.until("counter.count", 2)
    lab.until("heard", [[{"pressed": 1}, [7, 8]], [{"pressed": 2}, [7, 8]]])
    assert lab.cells() == cells

    lab.do("counter.count = 40; counter.send({'say': 'hello'}, [bytes([5, 6])])")
    expect(button).to_have_text("pressed 40 times")
    expect(lab.output(1).get_by_text("hello: 6")).to_be_visible()

    assert violations(page, axe, include=".jp-OutputArea-output", known=KNOWN_FAULTS) == []
    page.screenshot(path=shots / f"browser_{lab.path.split('/')[0]}.png")
    lab.theme("JupyterLab Dark")
    page.screenshot(path=shots / f"browser_{lab.path.split('/')[0]}_dark.png")


def test_what_goes_wrong_in_python_is_told(lab: Lab) -> None:
    lab.open(lab.write("x = 1", "1 / 0"))
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
        lab.run_all()
    with pytest.raises(AssertionError, match=r"y: NameError: name 'y' is not defined"):
        lab.py("y")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.do("1 / 0")
    with pytest.raises(AssertionError, match="x is 1, not 2"):
        lab.until("x", 2, patience=0.2)
    assert lab.py("sorted(name for name in dir() if 'json' in name)") == []  # asking leaves no trace


def test_requests_that_leave_the_machine_are_stopped_and_seen(lab: Lab) -> None:
    picture = "<img src='http://example.org/picture.png' alt='none'>"
    lab.open(lab.write(f"from IPython.display import HTML; HTML({picture!r})")).run_all()
    answer = lab.page.evaluate("fetch('http://example.org/data').catch(error => String(error))")
    assert "Failed to fetch" in answer
    lab.page.evaluate("new Promise(done => new WebSocket('ws://example.org/socket').onerror = () => done())")
    assert set(lab.page.external) == {
        "http://example.org/picture.png",
        "http://example.org/data",
        "ws://example.org/socket",
    }
    lab.page.external.clear()


def test_a_page_that_asked_elsewhere_or_threw_fails_its_test(chromium: Browser) -> None:
    with pytest.raises(AssertionError, match="asked for by the page"), watched_page(chromium, BLANK) as page:
        page.evaluate("fetch('http://example.org').catch(() => 0)")
    with (
        pytest.raises(AssertionError, match=r"errors in the page.*lost"),
        watched_page(chromium, BLANK) as page,
        page.expect_event("pageerror"),
    ):
        page.evaluate("void setTimeout(() => { throw new Error('lost'); })")


def test_errors_of_a_widget_are_seen_in_a_front_end(either: Lab) -> None:
    """Those of the front end itself are passed over, and this must not hide ours."""
    throws = "setTimeout(() => { throw new Error('lost'); });"
    late = f"export default {{ render({{ el }}) {{ {throws} el.textContent = 'up'; }} }}"
    code = f"import anywidget\nclass Late(anywidget.AnyWidget):\n    _esm = {late!r}\nLate()"
    either.open(either.write(code)).run_all()
    expect(either.output(0).get_by_text("up")).to_be_visible()
    for _ in range(1200):
        if either.page.js_errors:
            break
        either.page.wait_for_timeout(100)
    assert either.page.js_errors == ["lost"]
    either.page.js_errors.clear()


def test_kernels_stop_with_their_page(chromium: Browser, lab_server: Server) -> None:
    with notebook_page(chromium, lab_server) as lab:
        name = lab.write("x = 1")
        lab.open(name).run_all()
        assert [session["path"] for session in lab_server.api("GET", "sessions")].count(name) == 1
    assert name not in [session["path"] for session in lab_server.api("GET", "sessions")]


# A widget's JavaScript alone


def test_blank_tells_what_the_javascript_told_python(blank: Callable[..., Blank], axe: Path) -> None:
    widget = blank(ESM, {"count": 4}, css="button { color: rgb(1, 2, 3); min-height: 24px }")
    button = widget.page.get_by_role("button")
    expect(button).to_have_css("color", "rgb(1, 2, 3)")
    button.click()
    button.press("Enter")
    expect(button).to_have_text("pressed 6 times")
    assert widget.get("count") == 6
    assert widget.saved() == [{"count": 5}, {"count": 6}]
    assert widget.sent() == [{"pressed": 5}, {"pressed": 6}]
    assert widget.buffers() == [[b"\x07\x08"]] * 2
    assert violations(widget.page, axe) == []


def test_blank_speaks_as_python_does(blank: Callable[..., Blank]) -> None:
    widget = blank(ESM, {"count": 4})
    widget.put(count=11)
    expect(widget.page.get_by_role("button")).to_have_text("pressed 11 times")
    widget.put(other=1)
    widget.page.get_by_role("button").click()
    assert widget.saved() == [{"count": 12}]  # what Python sets is not sent back
    widget.receive({"say": "hello"}, b"\x05\x06")
    expect(widget.page.get_by_text("hello: 6")).to_be_visible()
    widget.show()
    assert widget.page.get_by_role("button").count() == 2
    assert sorted(widget.listeners()) == ["change:count"] * 2 + ["msg:custom"] * 2
    widget.cleanup()
    assert widget.listeners() == []


# Tells, in the trait `order`, how the fake keeps to the rules of a real model.
RULES_OF_A_MODEL = """
export default () => ({
  initialize({ model }) { model.set("order", ["initialize"]); },
  render({ model, el, signal }) {
    const log = (word) => model.set("order", [...model.get("order"), word]);
    const change = () => log(`a=${model.get("a")} b=${model.get("b")}`);
    const other = () => log("other");
    let changes = 0;
    model.on("change", () => { changes += 1; });
    model.on("change:a change:b", change);
    model.set({ a: 1, b: 2 });      // both are set before either event: twice "a=1 b=2"
    model.set("a", 1);              // nothing new, no event
    model.on("change:a", other);
    model.off("change:a", change);
    model.set("a", 3);              // "other"
    log(`${changes} changes`);      // what listeners set in between belongs to these two
    model.off();
    model.set("b", 3);
    log(`${model.get("raw").constructor.name} ${model.get("raw").getUint8(0)}`);
    model.save_changes();
    model.set("last", 1);
    model.save_changes();
    signal.addEventListener("abort", () => log("aborted"));
    return () => log("cleaned");
  },
});
"""


def test_the_fake_model_keeps_the_rules_of_backbone(blank: Callable[..., Blank]) -> None:
    widget = blank(RULES_OF_A_MODEL, {"a": 0, "b": 0, "raw": b"\xff"})
    told = ["initialize", "a=1 b=2", "a=1 b=2", "other", "2 changes", "DataView 255"]
    assert widget.saved() == [{"order": told, "a": 3, "b": 3}, {"last": 1}]
    widget.cleanup()
    assert widget.get("order") == [*told, "aborted", "cleaned"]


def test_blank_fails_with_the_javascript(blank: Callable[..., Blank]) -> None:
    with pytest.raises(Error, match="no such luck"):
        blank("export default { render() { throw new Error('no such luck'); } }", {})


def test_axe_finds_faults_and_names_them(blank: Callable[..., Blank], axe: Path) -> None:
    widget = blank("export default { render({ el }) { el.innerHTML = '<button></button>'; } }", {})
    assert violations(widget.page, axe) == ["button-name: <button></button>"]
    assert violations(widget.page, axe, known={"button-name"}) == []


def test_letters_are_drawn(blank: Callable[..., Blank]) -> None:
    """Without a font, every letter would be the same empty box."""
    widths = """() => [...'iwW0'].map(letter => {
        const pen = document.createElement('canvas').getContext('2d');
        pen.font = '40px sans-serif';
        return pen.measureText(letter).width; })"""
    page = blank("export default { render() {} }", {}).page
    assert len(set(page.evaluate(widths))) > 2


def test_bytes_survive_the_way_to_the_page_and_back() -> None:
    value = {"a": [b"\x00\xff", 1, None, {"b": (b"", "text")}]}
    assert unpacked(packed(value)) == {"a": [b"\x00\xff", 1, None, {"b": [b"", "text"]}]}


def test_a_taken_port_is_not_the_end(
    lab_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import server

    taken, free = int(lab_server.base.rsplit(":", 1)[1]), server.free_port()
    ports = iter([taken, free])
    monkeypatch.setattr(server, "free_port", lambda: next(ports))
    with server.jupyter_server(tmp_path, tmp_path / "state") as second:
        assert second.base.endswith(f":{free}")
        assert second.api("GET", "status")["started"]
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", free))
