"""The house of the design: imports go down the levels, and each big library has its one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nadkit

PACKAGE = Path(nadkit.__file__).parent

LEVELS_0_TO_2 = {"errors", "taps", "masks", "images", "networks"}
LEVELS_0_TO_3 = LEVELS_0_TO_2 | {"learn", "measures", "graph", "heatmaps", "toy"}
LEVELS_0_TO_4 = LEVELS_0_TO_3 | {"slicing"}

# module of nadkit: the modules of nadkit that it may import (itself aside). `__init__` only hands out names.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "taps": {"errors"},
    "masks": {"errors"},
    "images": {"errors"},
    "networks": {"errors", "taps", "masks", "images"},
    "learn": LEVELS_0_TO_2,
    "measures": LEVELS_0_TO_2,
    "graph": LEVELS_0_TO_2,
    "heatmaps": LEVELS_0_TO_2,
    "toy": LEVELS_0_TO_2,
    "slicing": LEVELS_0_TO_3,
    "questions": LEVELS_0_TO_4,
    "figures": {"errors"},
    "widgets": {"errors", "masks", "graph", "questions", "heatmaps", "figures"},
    "doctor": LEVELS_0_TO_2,
    "__main__": LEVELS_0_TO_4 | {"questions", "figures", "widgets", "doctor"},
}

# library: the modules of nadkit that may import it.
HOME_OF: dict[str, set[str]] = {
    "captum": {"heatmaps"},
    "networkx": {"graph", "figures"},
    "plotly": {"figures", "widgets"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "PIL": {"images"},
    "torchvision": set(),
    "timm": set(),
}
ONLY_OPTIONAL = {"torchvision", "timm"}  # everywhere, but only through `optional_import`
NEVER = {"pickle", "dill", "cloudpickle", "joblib", "shelve"}


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def running_code(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`, functions' bodies included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for other in node.orelse:
                yield other
                yield from running_code(other)
        else:
            yield node
            yield from running_code(node)


def imported(source: str, name: str, *, package: bool) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted name, through optional_import) of each import in module `name`."""
    for node in running_code(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = name.split(".")
                up = here[: len(here) - node.level + package]
                base = ".".join([*up, *([node.module] if node.module else [])])
            if base == "nadkit":  # `from nadkit import taps` names the module in the second half
                for alias in node.names:
                    yield node.lineno, f"nadkit.{alias.name}", False
            else:
                yield node.lineno, base, False
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in {"import_module", "__import__", "optional_import"} and isinstance(
                first, ast.Constant
            ):
                yield node.lineno, str(first.value), called == "optional_import"


def faults(source: str, name: str, *, package: bool = False) -> list[str]:
    """What module `name` imports against the rules."""
    home = name.split(".")[1]
    found = []
    for line, target, optional in imported(source, name, package=package):
        library, _, rest = target.partition(".")
        if library == "nadkit":
            module = rest.split(".")[0]
            if module not in {home, "__version__"} and module not in MAY_IMPORT[home]:
                found.append(f"{name}:{line} imports {target}")
        elif library in HOME_OF and home not in HOME_OF[library]:
            if not (optional and library in ONLY_OPTIONAL):
                found.append(f"{name}:{line} imports {target}")
        elif library in NEVER:
            found.append(f"{name}:{line} imports {target}")
    return found


def modules() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module but the package's own `__init__`."""
    out = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "nadkit":
            out.append((name, path))
    return out


@pytest.mark.parametrize(
    ("name", "path"), modules(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_imports_go_down_and_libraries_stay_home(name: str, path: Path) -> None:
    assert name.split(".")[1] in MAY_IMPORT, f"{name} stands on no level; give it one in DESIGN and here"
    assert faults(path.read_text(), name, package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nadkit.taps", "from nadkit.images import Images"),  # sideways
        ("nadkit.masks", "from nadkit import networks"),  # up
        ("nadkit.masks", "import nadkit.networks.builders as b"),
        ("nadkit.masks", "from .networks import load_network"),
        ("nadkit.masks", "from . import learn"),
        ("nadkit.networks.train", "from ..learn import learn_masks"),
        ("nadkit.masks", "import nadkit"),  # the facade reaches everything
        ("nadkit.masks", "def f():\n    from nadkit.learn import learn_masks"),
        ("nadkit.masks", "if TYPE_CHECKING:\n    pass\nelse:\n    from nadkit.learn import learn_masks"),
        ("nadkit.learn", "import importlib\nimportlib.import_module('nadkit.questions')"),
        ("nadkit.measures", "import plotly.graph_objects as go"),
        ("nadkit.measures", "from captum.attr import Saliency"),
        ("nadkit.networks", "import torchvision"),
        ("nadkit.networks", "import importlib\nimportlib.import_module('torchvision')"),
        ("nadkit.measures", "from nadkit.errors import optional_import\noptional_import('plotly', 'dev')"),
        ("nadkit.masks", "import pickle"),
    ],
)
def test_a_forbidden_import_is_seen(name: str, source: str) -> None:
    assert len(faults(source, name)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nadkit.learn", "from nadkit.networks import Network\nfrom nadkit import taps"),
        (
            "nadkit.networks.train",
            "from . import builders\nfrom .cells import Genotype\nfrom ..images import Images",
        ),
        ("nadkit.masks", "if TYPE_CHECKING:\n    from nadkit.networks import Network"),
        ("nadkit.masks", "from nadkit import __version__"),
        ("nadkit.networks", "optional_import('torchvision', 'vision')"),
        ("nadkit.images.folders", "def f():\n    from PIL import Image"),
        ("nadkit.figures", "import plotly.graph_objects as go\nimport networkx as nx"),
    ],
)
def test_an_allowed_import_passes(name: str, source: str) -> None:
    assert faults(source, name) == []


def test_relative_imports_are_read_from_where_they_stand() -> None:
    assert [t for _, t, _ in imported("from .a import b", "nadkit.networks", package=True)] == [
        "nadkit.networks.a"
    ]
    assert [t for _, t, _ in imported("from .a import b", "nadkit.networks.c", package=False)] == [
        "nadkit.networks.a"
    ]
    assert [t for _, t, _ in imported("from ..a import b", "nadkit.networks.c", package=False)] == [
        "nadkit.a"
    ]


def test_no_public_verb_shares_its_name_with_a_module() -> None:
    """Importing `nadkit.x.verb` would put the module where the verb was."""
    stems = {part for name, _ in modules() for part in name.split(".")[1:]}
    verbs = {name for name, home in nadkit._HOMES.items() if home}
    assert verbs & stems == set()


def test_importing_does_no_work() -> None:
    """At a module's top level stand definitions, and no call whose result is thrown away."""
    for name, path in modules():
        if name.endswith("__main__"):
            continue
        for node in ast.parse(path.read_text()).body:
            assert not isinstance(node, ast.For | ast.While | ast.With), (
                f"{name}:{node.lineno} loops at import"
            )
            call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            assert not call, f"{name}:{node.lineno} calls at import"
