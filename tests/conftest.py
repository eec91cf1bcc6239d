"""Every test runs on one thread, from fixed seeds, and without a network."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

# Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings
from vision_models import vision

from nadkit.errors import OptionalDependencyError

# The browser tests have a conftest of their own, and doctest would import two modules of one name.
collect_ignore = ["conftest.py", "browser/conftest.py"]

torch.set_num_threads(1)

# The same examples in every run, so that no run fails by chance.
settings.register_profile("nadkit", derandomize=True, database=None)
settings.load_profile("nadkit")

LOCAL = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Connections leave this machine in no test: everything nadkit needs is bundled or made."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and isinstance(address, tuple) and address[0] not in LOCAL:
            raise PermissionError(f"a test tried to reach {address}; tests have no network")
        connect(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `vision` need a torchvision that loads, not merely one that is installed."""
    if item.get_closest_marker("vision"):
        try:
            vision("torchvision")
            vision("timm")
        except OptionalDependencyError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def built_docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation's pages, warnings being errors.

    The lessons' outputs are left out: test_notebooks.py executes the notebooks, and once is enough. What
    becomes of outputs is tested by itself, and by the gallery, which is executed.
    """
    if find_spec("sphinx") is None:
        pytest.skip("the documentation is built with sphinx: make install")
    folder, root = tmp_path_factory.mktemp("docs"), Path(__file__).parents[1]
    command = [sys.executable, str(root / "docs" / "make.py"), "--no-run", "--to", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder / "html"
