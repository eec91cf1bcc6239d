"""A Jupyter server on localhost, apart from the user's own settings; it serves JupyterLab and Notebook 7."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

SETTINGS: dict[str, dict[str, object]] = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # cells off screen are drawn, too
    "@jupyterlab/apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
OPTIONS = [
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",  # the other one asks PyPI
    "--JupyterNotebookApp.expose_app_in_browser=True",
]

# A proxy of the environment must not stand between this process and its own server.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """A running server: where it answers, and the folder whose notebooks it serves."""

    base: str
    token: str
    folder: Path

    def api(self, method: str, path: str, timeout: float = 60) -> Any:
        """The answer of the server's own interface, `None` where it has nothing to say."""
        request = urllib.request.Request(
            f"{self.base}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with DIRECT.open(request, timeout=timeout) as answer:
            return json.loads(answer.read() or "null")

    def stop_kernels(self, name: str) -> None:
        """Shut down the kernels of one notebook; each holds hundreds of MB."""
        for session in self.api("GET", "sessions"):
            if session["path"] == name:
                self.api("DELETE", f"sessions/{session['id']}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def isolated(state: Path) -> dict[str, str]:
    """An environment whose Jupyter keeps everything under `state`; its kernels import this nadkit."""
    for plugin, values in SETTINGS.items():
        file = state / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    return {
        **os.environ,
        **{name: str(state / folder) for name, folder in folders.items()},
        "PYTHONPATH": str(ROOT),
    }


def answers(server: Server, process: subprocess.Popen[bytes], patience: float) -> bool:
    """Whether the server came up; it did not if its process ended, or after `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            server.api("GET", "status", timeout=10)
            return True
        time.sleep(0.1)
    return False


def stop(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Ask the server to go, kernels first; insist, by its own process id, if it stays."""
    with contextlib.suppress(OSError):
        server.api("POST", "shutdown")
    for insist in (lambda: None, process.terminate, process.kill):
        insist()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return


@contextlib.contextmanager
def jupyter_server(folder: Path, state: Path, patience: float = 180) -> Iterator[Server]:
    """Serve `folder` at /lab and, where the package notebook is installed, at /notebooks."""
    environment, log = isolated(state), state / "server.log"
    for _ in range(3):  # another process may take the free port first
        port, token = free_port(), secrets.token_hex(16)
        server = Server(f"http://127.0.0.1:{port}", token, folder)
        where = [f"--port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *OPTIONS, *where],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            if answers(server, process, patience):
                yield server
                return
        finally:
            stop(server, process)
    raise RuntimeError(f"no Jupyter server came up; its last words:\n{log.read_text()[-3000:]}")
