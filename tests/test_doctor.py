"""The command `doctor`: each check, what it says of faults, and the layers of a model of others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch

from nadkit import __main__ as command
from nadkit import doctor
from nadkit.masks import MaskSet
from nadkit.networks import load_network


def states(checks: Iterator[doctor.Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_python_is_compared_as_numbers() -> None:
    assert states(doctor.check_python((3, 9, 18))) == {"python": "FAIL"}
    assert states(doctor.check_python((3, 11, 0))) == {"python": "ok"}
    assert states(doctor.check_python((3, 110, 0))) == {"python": "ok"}
    assert next(doctor.check_python((3, 10, 2))).text == "3.10.2; 3.11 or newer is needed"


def test_packages_out_of_range_and_missing_fail_with_a_cure() -> None:
    there = {"torch": "2.13.0+cpu", "numpy": "1.26.4", "plotly": "6.10.0"}

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    wanted = ["torch>=2.6", "numpy<3,>=2", "plotly>=6.9", "tqdm>=4", 'timm; extra == "vision"']
    found = list(doctor.check_packages(lambda _: wanted, version))
    assert [(c.name, c.state) for c in found] == [
        ("nadkit", "ok"), ("torch", "ok"), ("numpy", "FAIL"), ("plotly", "ok"), ("tqdm", "FAIL"),
    ]  # fmt: skip
    assert found[2].text == "1.26.4; pip install 'numpy<3,>=2'"
    assert found[4].text == "not installed; pip install 'tqdm>=4'"


def not_there(_: str) -> NoReturn:
    raise PackageNotFoundError("nadkit")


def test_a_nadkit_that_is_not_installed_is_a_warning() -> None:
    found = list(doctor.check_packages(not_there, not_there))
    assert [(c.name, c.state) for c in found] == [("nadkit", "warn")]
    assert "not installed" in found[0].text


def test_more_threads_than_cores_are_a_warning() -> None:
    assert states(doctor.check_threads(2, 2)) == {"threads": "ok"}
    assert next(doctor.check_threads(8, 2)) == (
        "warn", "threads", "torch uses 8, cores: 2; slow: export OMP_NUM_THREADS=2",
    )  # fmt: skip
    assert states(doctor.check_threads(None, 4)) == {"threads": "ok"}  # the tests run on one


def test_memory_is_what_the_machine_and_its_container_leave(tmp_path: Path) -> None:
    def found() -> tuple[str, str]:
        check = next(doctor.check_memory(tmp_path))
        return check.state, check.text.split(" ")[0]

    assert found() == ("warn", "not")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemFree: 5 kB\nMemAvailable:   4000000 kB\n")
    assert found() == ("ok", "4.1")
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 800000 kB\n")
    assert found() == ("warn", "0.8")
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 600000 kB\n")
    assert found() == ("FAIL", "0.6")
    (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 9000000 kB\n")
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.stat").write_text("anon 1\ninactive_file 500000000\n")
    (group / "memory.current").write_text("1500000000\n")
    (group / "memory.max").write_text("max\n")
    assert found() == ("ok", "9.2")
    (group / "memory.max").write_text("2000000000\n")
    assert found() == ("ok", "1.0")  # cached files give way
    (group / "memory.max").write_text("1600000000\n")
    assert found() == ("FAIL", "0.6")


def test_missing_front_end_extensions_fail(tmp_path: Path) -> None:
    folder = tmp_path / "two" / "share" / "jupyter" / "labextensions"
    for name in ("@jupyter-widgets/jupyterlab-manager", "jupyterlab-plotly"):
        (folder / name).mkdir(parents=True)
        (folder / name / "package.json").write_text('{"version": "5.0.1"}')
    found = list(doctor.check_front_end([str(tmp_path / "one"), str(tmp_path / "two")]))
    assert [c.state for c in found] == ["ok", "FAIL", "ok"]
    assert found[0].text == "@jupyter-widgets/jupyterlab-manager 5.0.1"
    assert found[1].text.startswith("anywidget missing")
    assert found[1].text.endswith("pip install --force-reinstall --no-deps anywidget")


def test_what_is_optional_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = SimpleNamespace(__version__="0.28.0")
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "timm", None)
    found = states(doctor.check_optional(lambda name: "/bin/x" if name == "google-chrome" else None))
    assert found == {"chromium": "ok", "torchvision": "ok", "timm": "warn"}
    assert states(doctor.check_optional(lambda _: None))["chromium"] == "warn"


def test_damaged_and_foreign_masks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nadkit.networks.BUNDLED", ("resnet-fashion", "vgg-fashion"))
    monkeypatch.setattr("nadkit.networks.mask_path", lambda *_, **__: tmp_path / "any")
    assert [(c.name, c.state) for c in doctor.check_bundled()] == [
        ("pictures", "ok"), ("resnet-fashion", "FAIL"), ("vgg-fashion", "FAIL"),
    ]  # fmt: skip
    for name in ("resnet-fashion", "vgg-fashion"):
        network = load_network(name)
        scores = {address: torch.zeros(1, layer.units) for address, layer in network.layers.items()}
        meta = {"network": name, "weights_id": network.weights_id}
        MaskSet.from_scores(scores, ["bag"], meta).save(tmp_path / f"{name}-s0.safetensors")
    found = list(doctor.check_bundled())
    assert [c.state for c in found] == ["ok", "ok", "ok"]
    assert "mask files: 1" in found[1].text
    path = tmp_path / "resnet-fashion-s0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (tmp_path / "resnet-fashion-s0.safetensors").rename(tmp_path / "vgg-fashion-s1.safetensors")
    MaskSet.load(tmp_path / "vgg-fashion-s0.safetensors").save(path)
    assert states(doctor.check_bundled()) == {
        "pictures": "ok", "resnet-fashion": "FAIL", "vgg-fashion": "FAIL",
    }  # fmt: skip


def test_the_self_test_compares_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(doctor.check_gates()).state == "ok"
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, **more: ones(*size, **more) * (1 + 1e-6 * (not more)))
    assert next(doctor.check_gates()).state == "FAIL"


def test_a_broken_check_is_one_failed_line_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = doctor.Check("ok", "fine", "text")
    for name in ("packages", "threads", "memory", "front_end", "optional", "bundled"):
        monkeypatch.setattr(doctor, f"check_{name}", lambda: iter([good]))
    monkeypatch.setattr(doctor, "check_gates", lambda: iter([doctor.Check("warn", "gates", "hm")]))
    assert command.main(["doctor"]) == 0
    assert "8 checks: 0 failed, 1 warned" in capsys.readouterr().out

    def check_memory() -> Iterator[doctor.Check]:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "check_memory", check_memory)
    assert command.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        "FAIL  memory            RuntimeError: operator torchvision::nms does not exist; reinstall nadkit"
        in lines
    )
    assert lines[-1] == "8 checks: 1 failed, 1 warned"
    assert lines[-2].startswith("warn  gates")


def test_doctor_lists_the_layers_of_a_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def get_model(name: str, weights: object) -> torch.nn.Module:
        assert weights is None
        if name != "tiny":
            raise ValueError(f"Unknown model {name}")
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())

    library = SimpleNamespace(models=SimpleNamespace(get_model=get_model))
    monkeypatch.setattr(doctor, "optional_import", lambda *_: library)
    assert command.main(["doctor", "--model", "torchvision:tiny", "--size", "8"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "* 1  ReLU  (1, 4, 6, 6)  4 units on axis 1"
    assert said[-1] == "3 places, 3 tappable, 1 recommended (*); 0 dead"
    assert command.main(["doctor", "--model", "torchvision:huge"]) == 1
    assert "torchvision makes no model 'huge': Unknown model huge" in capsys.readouterr().err
    assert command.main(["doctor", "--model", "tiny"]) == 1
    assert "no model 'tiny'; give torchvision:NAME" in capsys.readouterr().err
    assert command.main(["doctor", "--model", ""]) == 1
    assert "no model ''; give torchvision:NAME" in capsys.readouterr().err
