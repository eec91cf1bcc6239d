"""The files around the code: what is installed, cited, promised and started belongs together."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import nadkit

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOOL: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]

# Binder: conda's names, and what stands there for conda alone.
PYPI_NAME = {"pytorch-cpu": "torch"}
CONDA_ONLY = {"python", "pip", "setuptools"}


def requirements(*extras: str) -> dict[str, SpecifierSet]:
    """What pyproject asks for, with these extras."""
    lines = [*PROJECT["dependencies"], *(r for e in extras for r in PROJECT["optional-dependencies"][e])]
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}


def pins() -> dict[str, str]:
    """Package -> version of constraints.txt."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, pinned = line.split("==")
            assert canonicalize_name(name) not in found, f"{name} is pinned twice"
            found[canonicalize_name(name)] = pinned
    return found


def binder() -> dict[str, SpecifierSet]:
    """What environment.yml asks for, by PyPI's names; conda's `=2.13` reads as `==2.13.*`."""
    found: dict[str, SpecifierSet] = {}
    for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        for line in entry["pip"] if isinstance(entry, dict) else [entry]:
            match = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*([<>=!~].*)?", line)
            assert match, (
                f"{line!r} is no plain requirement (a local one would rebuild Binder's image each commit)"
            )
            name = canonicalize_name(PYPI_NAME.get(match[1], match[1]))
            assert name not in found, f"{name} stands in environment.yml twice"
            found[name] = SpecifierSet(re.sub(r"^=([\d.]+)$", r"==\1.*", match[2] or ""))
    return found


def python(code: str, cwd: Path) -> str:
    """Standard output of `code` in a fresh interpreter that finds this nadkit."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# The import


def test_import_is_lazy_and_leaves_no_trace(tmp_path: Path) -> None:
    code = "import json, sys, nadkit\ndir(nadkit)\nprint(json.dumps(sorted(sys.modules)))"
    loaded = {module.split(".")[0] for module in json.loads(python(code, tmp_path))}
    heavy = {
        "captum",
        "plotly",
        "ipywidgets",
        "anywidget",
        "pandas",
        "networkx",
        "PIL",
        "scipy",
        "matplotlib",
    }
    assert loaded & heavy == set()
    assert list(tmp_path.iterdir()) == []


def test_the_working_names_pull_in_no_display_library(tmp_path: Path) -> None:
    """Loading, gating and learning must start on a machine that shows nothing."""
    names = "Taps, MaskSet, Network, Images, load_network, load_images, learn_masks, whether"
    code = f"import json, sys\nfrom nadkit import {names}\nprint(json.dumps(sorted(sys.modules)))"
    loaded = {module.split(".")[0] for module in json.loads(python(code, tmp_path))}
    assert loaded & {"captum", "plotly", "ipywidgets", "anywidget", "matplotlib", "torchvision"} == set()


def test_importing_changes_no_state(tmp_path: Path) -> None:
    code = (
        "import random, logging, torch\n"
        "def state(): return (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),\n"
        "    torch.get_rng_state().tolist(), random.getstate(), len(logging.root.handlers))\n"
        "before = state()\n"
        "import nadkit\n"
        "[getattr(nadkit, name) for name in nadkit.__all__]\n"
        "print(state() == before)"
    )
    assert python(code, tmp_path) == "True\n"


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert sorted(nadkit.__all__) == nadkit.__all__
    for name in nadkit.__all__:
        value = getattr(nadkit, name)
        assert value is getattr(nadkit, name), f"nadkit.{name} is made anew at each use"
        assert (value.__doc__ or "").strip(), f"nadkit.{name} has no docstring"
        assert name in dir(nadkit)


def test_unknown_names_are_named() -> None:
    with pytest.raises(AttributeError, match=r"'learn_mask'.*learn_masks"):
        nadkit.learn_mask  # noqa: B018 - the look-up is the test
    with pytest.raises(ImportError, match="load_netwrok"):
        exec("from nadkit import load_netwrok")


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING repeat the table of homes; neither may drift."""
    tree = ast.parse(Path(nadkit.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen: dict[str, str | None] = {}
    for node in block.body:
        if isinstance(node, ast.Import):  # a module that is itself the public name
            (module,) = node.names
            assert module.name == f"nadkit.{module.asname}"
            seen[str(module.asname)] = None
            continue
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: only `import x as x` is re-exported"
            seen[alias.name] = str(node.module).removeprefix("nadkit.")
    assert seen == nadkit._HOMES


# Versions and packages


def test_one_version_everywhere() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", nadkit.__version__)
    assert PROJECT["dynamic"] == ["version"]
    assert TOOL["setuptools"]["dynamic"]["version"] == {"attr": "nadkit.__version__"}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == nadkit.__version__
    assert re.search(rf"^## \[{re.escape(nadkit.__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.M)


@pytest.mark.parametrize("name", sorted(requirements("vision", "photos", "dev", "docs")))
def test_every_requirement_is_pinned_inside_its_range(name: str) -> None:
    assert name in pins(), f"{name} is not in constraints.txt"
    assert pins()[name] in requirements("vision", "photos", "dev", "docs")[name]


def test_developers_have_what_the_lessons_on_photos_need() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras["photos"]) <= set(extras["dev"])


def test_torch_is_the_pinned_build_of_the_makefile() -> None:
    """A bare `torch` in the install command would bring several GB of CUDA packages."""
    assert pins()["torch"] == "2.13.0"
    assert "-c constraints.txt torch==2.13.0" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", sorted(requirements("dev")))
def test_what_is_installed_is_inside_the_ranges(name: str) -> None:
    try:
        installed = version(name).split("+")[0]
    except PackageNotFoundError:
        pytest.fail(f"{name} is not installed; run: make install")
    assert installed in requirements("dev")[name]


def test_what_the_code_imports_is_required() -> None:
    """An import that only the developer's machine can satisfy breaks at the first user."""
    distribution = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
    required = {*requirements(), "nadkit"}
    for path in sorted((ROOT / "nadkit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in (n.split(".")[0] for n in names):
                package = canonicalize_name(distribution.get(name, name))
                assert name in sys.stdlib_module_names or package in required, f"{path.name} imports {name}"


def test_package_data_covers_every_data_file() -> None:
    covered: set[Path] = set()
    for package, patterns in TOOL["setuptools"]["package-data"].items():
        folder = ROOT.joinpath(*package.split("."))
        for pattern in patterns:
            hits = {
                p for p in folder.glob(pattern if pattern[-2:] != "**" else pattern + "/*") if p.is_file()
            }
            assert hits, f"{package}: {pattern} matches no file"
            covered |= hits
    there = {
        p
        for p in (ROOT / "nadkit").rglob("*")
        if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts
    }
    assert there - covered == set(), "not shipped: name them in pyproject.toml, package-data"


# Binder


def test_environment_has_the_shape_binder_caches() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(environment) == {"name", "channels", "dependencies"}
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert not (ROOT / "binder").exists(), "a folder binder/ would make Binder ignore environment.yml"


def test_environment_lists_the_same_packages() -> None:
    assert set(binder()) - CONDA_ONLY == set(requirements("photos"))
    assert binder().keys() >= CONDA_ONLY


@pytest.mark.parametrize("name", sorted(requirements("photos")))
def test_environment_and_project_ask_for_the_same_versions(name: str) -> None:
    ours, theirs = requirements("photos")[name], binder()[name]
    if name == "torch":  # conda's metapackage names one release: the pinned one, inside our range
        assert pins()["torch"] in theirs
        assert pins()["torch"] in ours
    else:
        assert ours == theirs


def test_environment_python_and_build_backend_fit() -> None:
    required = SpecifierSet(PROJECT["requires-python"])
    offered = next(iter(binder()["python"])).version.removesuffix(".*")
    assert f"{offered}.1" in required
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {r.name: r.specifier for r in map(Requirement, backend)} == {"setuptools": binder()["setuptools"]}


@pytest.mark.parametrize("name", ["postBuild", ".ci/run"])
def test_scripts_can_run_and_stop_at_a_fault(name: str) -> None:
    path = ROOT / name
    assert path.stat().st_mode & stat.S_IXUSR, f"{name} is not executable"
    assert path.read_text().startswith("#!")
    assert "\nset -euo pipefail\n" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True)


def test_post_build_installs_nadkit_from_what_is_there() -> None:
    """With build isolation or dependencies, pip would fetch a second, different environment."""
    assert "pip install --no-deps --no-build-isolation .\n" in (ROOT / "postBuild").read_text()


# Citation, licence, pages


def people(entries: list[dict[str, str]]) -> bool:
    """Whether each entry is a person or an entity, as the Citation File Format has them."""
    return bool(entries) and all(
        set(e) == {"family-names", "given-names"} or set(e) == {"name"} for e in entries
    )


def test_citation_is_valid_and_names_the_method() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    citation = yaml.safe_load(text)
    assert str(citation["cff-version"]) == "1.2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format requires
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == [{"name": "The nadkit developers"}] == PROJECT["authors"]
    assert isinstance(citation["version"], str)
    assert isinstance(citation.get("date-released", date.today()), date)
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference)
        assert reference["type"] in {"conference-paper", "article", "software", "dataset"}
        assert people(reference["authors"])
        assert isinstance(reference["year"], int)
        assert all(set(i) >= {"type", "value"} for i in reference.get("identifiers", []))
    method = citation["references"][0]
    assert method["title"] == "Architecture Disentanglement for Deep Neural Networks"
    assert method["authors"][0] == {"family-names": "Hu", "given-names": "Jie"}
    assert (method["year"], method["start"], method["end"]) == (2021, 672, 681)
    assert "International Conference on Computer Vision" in method["conference"]["name"]


def test_licence_and_notice_are_complete() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert licence.lstrip().startswith("Apache License\n")
    assert "END OF TERMS AND CONDITIONS" in licence
    notice = (ROOT / "NOTICE").read_text()
    for needed in (
        "Fashion-MNIST",
        "Copyright © 2017 Zalando SE",
        "Permission is hereby granted",
        "DARTS_V2",
    ):
        assert needed in notice
    assert PROJECT["license-files"] == ["LICENSE", "NOTICE"]


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/vocabulary.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_project_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if not re.match(r"https?://|mailto:|#", target):
            assert (ROOT / page).parent.joinpath(target.split("#")[0]).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_the_pages_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", (ROOT / page).read_text(), re.M))
    assert {a or b for a, b in named} <= targets


def test_readme_shows_names_that_exist() -> None:
    names = set(re.findall(r"\bnk\.([A-Za-z_]+)", (ROOT / "README.md").read_text()))
    assert names
    assert names <= set(nadkit.__all__)


@pytest.mark.slow
def test_the_examples_of_the_readme_run_one_after_the_other(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 10
    python(
        "".join(blocks).replace("import nadkit", "import torch; torch.set_num_threads(1); import nadkit", 1),
        tmp_path,
    )
