"""Links that need the repository's owner and name, all from one setting: `[tool.nadkit]` of pyproject.toml.

`python docs/launch.py` writes those of the README anew. While the setting is empty, there are none.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- launch -->\n)(.*?)(<!-- /launch -->)", re.S)
"""Where the README's links stand."""


@dataclass(frozen=True)
class Launch:
    """The addresses of one version of the repository, `repository` being "owner/name" or empty."""

    repository: str
    tag: str

    def __post_init__(self) -> None:
        """Refuse what would make dead links."""
        if self.repository and not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", self.repository):
            raise ValueError(
                f"repository is {self.repository!r} in pyproject.toml; write owner/name, or nothing"
            )

    @classmethod
    def of(cls, root: Path = ROOT) -> Launch:
        """Return what pyproject.toml sets, at the tag of nadkit's version."""
        setting = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["nadkit"]["repository"]
        found = re.search(r'^__version__ = "(.+)"', (root / "nadkit" / "__init__.py").read_text(), re.M)
        assert found
        return cls(setting, f"v{found[1]}")

    def file(self, path: str) -> str:
        """Return the address of a file's page."""
        return f"https://github.com/{self.repository}/blob/{self.tag}/{quote(path)}"

    def binder(self, notebook: str = "notebooks/00_tour.ipynb") -> str:
        """Return the address that opens a notebook in JupyterLab on mybinder.org."""
        place = quote(f"lab/tree/{notebook}", safe="")
        return f"https://mybinder.org/v2/gh/{self.repository}/{self.tag}?urlpath={place}"

    def colab(self, notebook: str) -> str:
        """Return the address that opens a notebook in Colab."""
        return f"https://colab.research.google.com/github/{self.repository}/blob/{self.tag}/{quote(notebook)}"

    def readme(self) -> str:
        """Return the README's lines: nothing without a repository."""
        return f"[Open the tour in Binder]({self.binder()})\n" if self.repository else ""

    def lesson(self, notebook: str) -> str:
        """Return the line below a lesson's title on its page."""
        name = Path(notebook).name
        links = (
            [f"[Binder]({self.binder(notebook)})", f"[Colab]({self.colab(notebook)})"]
            if self.repository
            else []
        )
        links.append(f'<a href="../downloads/{name}" download>download the notebook</a>')
        return f"Open this lesson yourself: {' · '.join(links)} · [how](../how-to/open-elsewhere.md)"

    def table(self, notebooks: dict[str, str]) -> str:
        """Return a table of links, a row a notebook (path → title), or how to get it."""
        if not self.repository:
            return (
                "```{note}\nThis copy of the documentation knows of no public repository, so there are no "
                "links here. To have them, write its owner and name into `pyproject.toml`, run "
                "`python docs/launch.py` and `make docs`:\n\n"
                '    [tool.nadkit]\n    repository = "owner/name"\n```\n'
            )
        rows = [
            f"| {title} | [open]({self.binder(path)}) | [open]({self.colab(path)}) |"
            for path, title in notebooks.items()
        ]
        return "\n".join(["| lesson | Binder | Colab |", "|---|---|---|", *rows, ""])


def with_links(text: str, launch: Launch) -> str:
    """Return the README's text with its links as the setting wants them."""
    return BLOCK.sub(lambda found: found[1] + launch.readme() + found[3], text)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(with_links(page.read_text(), Launch.of()))
    sys.stdout.write(f"{page.name} has the links of {Launch.of().repository or 'no repository'}\n")
