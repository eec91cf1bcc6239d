"""The shape of a lesson: what every notebook has, in which order, and what breaks it, in words."""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path
from typing import Any

CLAIM = ("claim", "effect", "interval", "control", "does not show")  # what the closing cell prints
MARKS = {"Predict.": "predict", "Read.": "read", "What it does not show.": "not shown"}
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]*)\)")
KILOBYTE = 1000


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def tagged(notebook: Any, tag: str) -> list[Any]:
    return [cell for cell in notebook.cells if tag in tags(cell)]


def lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip()]


def words(notebook: Any) -> int:
    """Words a reader reads: the text cells without pictures' words, signs and tags."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"<[^>]*>", " ", PICTURE.sub(" ", text))
    return len(re.findall(r"[^\W_]+(?:['’.-][^\W_]+)*", text))


def faults_of_shape(notebook: Any, stem: str, folder: Path) -> list[str]:
    """What keeps a notebook from being a lesson, in words; none for a good one."""
    return [
        *faults_of_header(notebook),
        *faults_of_picture(notebook, stem, folder),
        *faults_of_sections(notebook),
        *faults_of_by_hand(notebook),
        *faults_of_exercises(notebook),
        *faults_of_closing(notebook),
    ]


def faults_of_header(notebook: Any) -> list[str]:
    head = notebook.cells[0].source
    found = ["the title is not a question"] * (not re.match(r"# [^\n]+\?\n", head + "\n"))
    for mark in ("**Question.**", "**Afterwards you can**", "**Time.**", "**Needs.**"):
        found += [f"the header lacks {mark}"] * (mark not in head)
    aims = re.findall(r"^- ", head.partition("**Afterwards you can**")[2], re.M)
    found += [f"{n} things the reader can do afterwards, not three" for n in [len(aims)] if n != 3]
    time = head.partition("**Time.**")[2].partition("**Needs.**")[0]
    found += ["**Time.** gives no minutes"] * ("minute" not in time and "hour" not in time)
    count = words(notebook)
    found += [f"{count} words, not 600 to 1,500"] * (not 600 <= count <= 1500)
    setup = next((cell.source for cell in notebook.cells if cell.cell_type == "code"), "")
    found += [f"a setup cell of {n} lines, at most 12" for n in [len(lines(setup))] if n > 12]
    found += ["the setup cell does not set one thread"] * ("torch.set_num_threads(1)" not in setup)
    return found


def faults_of_picture(notebook: Any, stem: str, folder: Path) -> list[str]:
    opening = "\n".join(cell.source for cell in notebook.cells[:2] if cell.cell_type == "markdown")
    pictures = PICTURE.findall(opening)
    found = [f"{n} static pictures at the top, not one" for n in [len(pictures)] if n != 1]
    for alt, target in pictures:
        found += [f"{target} has no words"] * (len(alt.split()) < 5)
        found += [f"{target} is not pictures/{stem}.png"] * (target != f"pictures/{stem}.png")
        data = (folder / target).read_bytes() if (folder / target).is_file() else b""
        found += [f"{target} is no PNG file; take it: make pictures"] * (not data.startswith(b"\x89PNG"))
        size = len(data) / KILOBYTE
        found += [f"{target} has {size:.0f} kB, at most 120"] * (size > 120)
    shown = tagged(notebook, "picture")
    return found + [f"{n} cells tagged picture, not one" for n in [len(shown)] if n != 1]


def faults_of_sections(notebook: Any) -> list[str]:
    """Faults of predict → run → read: a prediction comes before the run, what it shows after it."""
    course: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            course += ["run"] * (not {"solution", "check"} & set(tags(cell)))
        else:
            course += [
                MARKS[mark] for mark in re.findall(r"\*\*([^*]+?\.)\*\*", cell.source) if mark in MARKS
            ]
    found = [
        f"{n} times {mark}, at least twice" for mark in MARKS.values() for n in [course.count(mark)] if n < 2
    ]
    for part in " ".join(course).split("predict")[1:]:
        if not re.search(r"run.* read", part):
            found.append(f"a prediction that nothing runs and reads: predict{part.rstrip()}")
    return found


def faults_of_by_hand(notebook: Any) -> list[str]:
    cells = tagged(notebook, "by-hand")
    found = [f"{n} cells tagged by-hand, not one" for n in [len(cells)] if n != 1]
    for cell in cells:
        body = ast.parse(cell.source).body
        found += ["the by-hand cell does not end in an assertion"] * (not isinstance(body[-1], ast.Assert))
    return found


def faults_of_exercises(notebook: Any) -> list[str]:
    exercises: list[tuple[str, list[Any]]] = []
    inside = False
    for cell in notebook.cells:
        headings = re.findall(r"^#{1,3} .*", cell.source, re.M) if cell.cell_type == "markdown" else []
        if headings:
            inside = headings[-1].startswith("### Exercise")
            exercises += [(headings[-1], [])] if inside else []
        if inside:
            exercises[-1][1].append(cell)
    found = [f"{n} exercises, not two or three" for n in [len(exercises)] if n not in (2, 3)]
    for number, (heading, cells) in enumerate(exercises, 1):
        if not re.fullmatch(rf"### Exercise {number} \(\d+ min\)", heading):
            found.append(f"{heading!r} is not '### Exercise {number} (5 min)'")
        text = "\n".join(cell.source for cell in cells)
        found += [f"exercise {number} has no hint"] * ("<details><summary>Hint</summary>" not in text)
        kinds = [tag for cell in cells if cell.cell_type == "code" for tag in tags(cell)]
        order = [kind for kind in kinds if kind in ("solution", "check")]
        if order != ["solution", "check"]:
            found.append(f"exercise {number} has {order}, not one solution, then one check")
        codes = [cell for cell in cells if cell.cell_type == "code"]
        theirs = {
            name for cell in codes if not {"solution", "check"} & set(tags(cell)) for name in set_in(cell)
        }
        ours = {name for cell in codes if "solution" in tags(cell) for name in set_in(cell)}
        found += [f"the solution of exercise {number} overwrites {name}" for name in sorted(theirs & ours)]
    for cell in notebook.cells:
        told = "<summary>Solution</summary>" in cell.source
        found += ["a solution in the text is not tagged so"] * (told and "solution" not in tags(cell))
        if cell.cell_type == "code" and "solution" in tags(cell):
            folded = "hide-cell" in tags(cell) and cell.metadata.get("jupyter", {}).get("source_hidden")
            found += ["a solution is not folded"] * (not folded)
        if cell.cell_type == "code" and "check" in tags(cell):
            body = ast.parse(cell.source).body
            silent = [line for line in body if isinstance(line, ast.Assert) and line.msg is None]
            found += ["a check says nothing when it fails"] * bool(silent)
            found += ["a check asserts nothing"] * (not any(isinstance(line, ast.Assert) for line in body))
    return found


def set_in(cell: Any) -> set[str]:
    """Names that a cell sets whatever they were: outside any `if`."""
    lines = [line for line in ast.parse(cell.source).body if not isinstance(line, ast.If)]
    names = [node for line in lines for node in ast.walk(line) if isinstance(node, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def faults_of_closing(notebook: Any) -> list[str]:
    claims = tagged(notebook, "claim")
    found = [f"{n} cells tagged claim, not one" for n in [len(claims)] if n != 1]
    for cell in claims:
        found += [f"the claim does not say: {part}" for part in CLAIM if part not in cell.source.lower()]
        found += ["the claim prints no number"] * (not re.search(r"f[\"'].*\{", cell.source))
    last = notebook.cells[-1]
    text = last.source.lower() if last.cell_type == "markdown" else ""
    found += ["the last cell does not say to shut the kernel down"] * ("shut the kernel down" not in text)
    after = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return found + ["no **Further reading.**"] * ("**Further reading.**" not in after)


def with_early_checks(notebook: Any) -> Any:
    """A copy that also runs each check before its solution, where it must fail and say what is missing."""
    early = copy.deepcopy(notebook)
    cells = list(early.cells)
    for place, cell in enumerate(cells):
        if cell.cell_type == "code" and "check" in tags(cell):
            solution = max(n for n in range(place) if "solution" in tags(cells[n]))
            trial = copy.deepcopy(cell)
            trial["id"] = f"{cell['id'][:50]}-early"
            trial.metadata["tags"] = ["early", "raises-exception"]
            early.cells.insert(early.cells.index(cells[solution]), trial)
    return early


def faults_of_early_checks(done: Any) -> list[str]:
    """Checks that did not stop the reader who has not solved the exercise, with a message."""
    found = []
    for cell in tagged(done, "early"):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        names = [(error.ename, bool(error.evalue)) for error in errors]
        if names != [("AssertionError", True)]:
            found.append(f"{cell['id']} before its solution: {names or 'passes'}")
    return found


def faults_of_claim(done: Any) -> list[str]:
    """What the closing cell of an executed notebook does not print."""
    printed = "".join(o.text for cell in tagged(done, "claim") for o in cell.outputs if "text" in o).lower()
    return [f"the claim does not print: {part}" for part in CLAIM if part not in printed]
