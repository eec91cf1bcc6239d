from __future__ import annotations

import inspect
import json
import math
import stat
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nadkit.errors import NadkitError
from nadkit.images import Images
from nadkit.images.fashion import CLASS_NAMES
from nadkit.networks import BUNDLED, bundled, fresh_network, hash_weights, load_network, model_card, train

NAME = "vgg-fashion"


def few(source: str, split: str, _scenes: int = 0) -> Images:
    """Return 150 pictures, two batches, the second of 22: noise alone, or with stripes across or along."""
    assert source == "fashion"
    generator = torch.Generator().manual_seed(1 if split == "train" else 2)
    labels = torch.arange(150) % 3
    pixels = torch.randint(0, 100, (150, 1, 28, 28), generator=generator, dtype=torch.uint8)
    pixels[labels == 1, :, ::4] += 120
    pixels[labels == 2, :, :, ::4] += 120
    return Images(pixels, labels, CLASS_NAMES)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_pictures", few)
    monkeypatch.setattr(train, "load_images", lambda source, split: few(source, split)[:20])


def run(folder: Path, epochs: int = 3, **settings: float) -> Path:
    return train.train(
        NAME, epochs=epochs, folder=folder, scratch=folder / "scratch", device="cpu", **settings
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of a training that nothing interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_pictures", few)
        patch.setattr(train, "load_images", lambda source, split: few(source, split)[:20])
        return load_file(run(tmp_path_factory.mktemp("whole")))


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(v, two[k]) for k, v in one.items())


def slow_training(epochs: int, rate: float = 0.1) -> dict[str, Tensor]:
    """Return the weights of the same training by torch's own optimiser, scheduler and loss."""
    images = few("fashion", "train")
    network = fresh_network(NAME)
    model = network.model.requires_grad_(True).train()
    heavy = [p for p in model.parameters() if p.ndim > 1]
    light = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": heavy, "weight_decay": 5e-4}, {"params": light, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=1.0, momentum=0.9)

    def factor(step: int) -> float:
        at = step / (2 * epochs)  # share of the training that is done
        return rate * (5 * at if at < 0.2 else (1 + math.cos(math.pi * (at - 0.2) / 0.8)) / 2)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(150, generator=generator)
        for rows in (order[:128], order[128:]):
            batch = train._augment(network.preprocess(images.pixels[rows]), generator)
            optimiser.zero_grad()
            F.cross_entropy(model(batch), images.labels[rows]).backward()
            optimiser.step()
            schedule.step()
    return model.state_dict()


def test_training_equals_one_by_torch_s_optimiser(whole: dict[str, Tensor]) -> None:
    slow = slow_training(3)
    for key, value in whole.items():
        torch.testing.assert_close(value, slow[key], rtol=1e-3, atol=1e-4)


class Stop(KeyboardInterrupt):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> pytest.MonkeyPatch:
    """Interrupt a training before its step-th batch, counted from 0."""
    calls = iter(range(step))
    augment = train._augment

    def counted(pixels: Tensor, generator: torch.Generator) -> Tensor:
        if next(calls, None) is None:
            raise Stop
        return augment(pixels, generator)

    monkeypatch.setattr(train, "_augment", counted)
    return monkeypatch


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_interrupted_training_resumes_to_the_same_weights(
    tmp_path: Path, whole: dict[str, Tensor], step: int
) -> None:
    state = tmp_path / "scratch" / f"{NAME}.state.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step)
        patch.setattr(train, "_pictures", few)
        with pytest.raises(Stop):
            run(tmp_path)
    # Two batches an epoch: whole epochs are kept, and no weights are shipped.
    assert state.exists() == (step >= 2)
    assert not list(tmp_path.glob("*.safetensors"))
    torch.manual_seed(step)  # what the caller drew since does not matter
    with pytest.MonkeyPatch.context() as patch:
        calls: list[int] = []
        augment = train._augment
        patch.setattr(train, "_augment", lambda p, g: (calls.append(1), augment(p, g))[1])
        path = run(tmp_path)
    assert len(calls) == 6 - step // 2 * 2  # nothing is trained twice
    assert equal(load_file(path), whole)
    assert not list((tmp_path / "scratch").iterdir())  # the state is gone, parts too


def test_interruption_while_the_state_is_written_keeps_the_last(
    tmp_path: Path, whole: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    save, times = train.save_file, iter([False, True])

    def breaking(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        if next(times, False):
            Path(path).write_bytes(b"half")
            raise Stop
        save(tensors, path, metadata)

    monkeypatch.setattr(train, "save_file", breaking)
    with pytest.raises(Stop):
        run(tmp_path)
    with safe_open(tmp_path / "scratch" / f"{NAME}.state.safetensors", "pt") as file:
        assert json.loads(file.metadata()["settings"])["done"] == 1
    assert equal(load_file(run(tmp_path)), whole)


def test_other_settings_do_not_resume(tmp_path: Path, whole: dict[str, Tensor]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Stop):
            run(tmp_path)
    state = tmp_path / "scratch" / f"{NAME}.state.safetensors"
    before = state.read_bytes()
    for settings in ({"epochs": 2}, {"rate": 0.05}, {"seed": 1}):
        with pytest.raises(NadkitError, match=r"other settings .*remove it to start over"):
            run(tmp_path, **settings)  # type: ignore[arg-type]
    assert state.read_bytes() == before
    assert equal(load_file(run(tmp_path)), whole)


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    state = tmp_path / "scratch" / f"{NAME}.state.safetensors"
    state.write_bytes(b"nothing of the kind")
    with pytest.raises(NadkitError, match="is no state of a training"):
        run(tmp_path)
    save_file({"model/x": torch.zeros(1)}, state)
    with pytest.raises(NadkitError, match="is no state of a training"):
        run(tmp_path)


def test_seed_decides_the_weights(tmp_path: Path, whole: dict[str, Tensor]) -> None:
    torch.manual_seed(11)
    random = torch.get_rng_state()
    assert equal(load_file(run(tmp_path / "again")), whole)
    assert torch.equal(torch.get_rng_state(), random)
    assert not equal(load_file(run(tmp_path / "other", seed=1)), whole)


def test_what_is_shipped_loads_with_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run(tmp_path, epochs=8)
    shipped = load_file(path)
    assert path == tmp_path / f"{NAME}.safetensors"
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044  # everyone may read it
    assert not any(key.endswith("num_batches_tracked") for key in shipped)
    monkeypatch.setattr(bundled, "DATA", tmp_path)
    network, card = load_network(NAME), bundled.model_card(NAME)
    assert equal({k: network.model.state_dict()[k] for k in shipped}, shipped)
    for count, (split, key) in {
        150: ("test", "test_accuracy"),
        20: ("test", "test_accuracy_200_a_class"),
    }.items():
        images = few("fashion", split)[:count]
        assert card[key] == int((network(images.pixels).argmax(1) == images.labels).sum()) / count
    assert card["test_accuracy"] > 0.55  # it learns: chance is a third, ± 0.04
    assert card["test_pictures"] == 150
    assert card["command"] == f"python -m nadkit.networks.train {NAME} --epochs 8 --rate 0.1 --seed 0"
    assert card["weights_id"] == hash_weights(shipped) == network.weights_id
    assert (card["name"], card["family"], card["epochs"], card["rate"], card["seed"]) == (
        NAME,
        "vgg",
        8,
        0.1,
        0,
    )
    assert "60,000" in card["data"]


def test_augmentation_flips_half_and_moves_by_at_most_two() -> None:
    pixels = torch.arange(64 * 9 * 9.0).reshape(64, 1, 9, 9)
    moves: set[tuple[int, int]] = set()
    for seed in range(40):
        out = train._augment(pixels, torch.Generator().manual_seed(seed))
        again = train._augment(pixels, torch.Generator().manual_seed(seed))
        assert torch.equal(out, again)
        found = []
        for flipped in (False, True):
            source = F.pad(pixels.flip(-1) if flipped else pixels, (2,) * 4, mode="replicate")
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    part = source[:, :, 2 - dy : 11 - dy, 2 - dx : 11 - dx]
                    rows = (part == out).flatten(1).all(1)
                    if rows.any():
                        found.append((flipped, dy, dx, int(rows.sum())))
        assert sum(f[3] for f in found) == 64  # every picture is one of these, whole
        assert len({f[1:3] for f in found}) == 1  # a batch moves together
        assert {f[0] for f in found} == {False, True}
        moves.add(found[0][1:3])
    assert len(moves) > 15


def test_accuracy_by_hand() -> None:
    model = torch.nn.Linear(2, 2, bias=False).train()
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    inputs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]])
    assert train.accuracy(model, inputs, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    many = inputs.repeat(400, 1)  # more than one batch, the last not full
    assert train.accuracy(model, many, torch.tensor([0, 1, 1]).repeat(400)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vgg-fashon", {}, "no bundled network 'vgg-fashon'; closest: vgg-fashion"),
        (NAME, {"epochs": 0}, "epochs of at least 1"),
        (NAME, {"rate": 0.0}, "a rate above 0"),
        (NAME, {"rate": math.nan}, "a rate above 0"),
    ],
)
def test_bad_settings_are_refused(
    tmp_path: Path, name: str, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(NadkitError, match=message):
        train.train(name, folder=tmp_path, scratch=tmp_path, **settings)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def noted(name: str, **settings: object) -> Path:
        asked.append((name, settings))
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(bytes(500_000))
        return path

    monkeypatch.setattr(train, "train", noted)
    arguments = [
        "vgg-fashion",
        "darts-scenes",
        "--epochs",
        "2",
        "--rate",
        "0.2",
        "--seed",
        "5",
        "--scenes",
        "7",
    ]
    train.main([*arguments, "--folder", str(tmp_path), "--device", "cpu"])
    wanted = {"epochs": 2, "rate": 0.2, "seed": 5, "scenes": 7, "folder": tmp_path, "device": "cpu"}
    assert asked == [("vgg-fashion", wanted), ("darts-scenes", wanted)]
    assert capsys.readouterr().out.splitlines()[1].endswith("darts-scenes.safetensors 0.50 MB")
    asked.clear()
    train.main(["all"])
    assert [name for name, _ in asked] == list(bundled.BUNDLED)
    asked.clear()
    with pytest.raises(NadkitError, match="no bundled network 'vgg'"):
        train.main(["vgg-fashion", "vgg"])  # said before hours are spent on the first
    assert not asked


def test_nothing_but_a_bar_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, epochs=1)
    out = capsys.readouterr()
    assert (out.out, out.err) == ("", "")  # no terminal, no bar
    assert not sys.stderr.isatty()


@pytest.mark.parametrize("name", BUNDLED)
def test_the_command_without_options_trains_what_is_shipped(name: str) -> None:
    card = model_card(name)
    defaults = inspect.signature(train.train).parameters
    assert card["epochs"] == train.EPOCHS[name]
    assert card["rate"] == defaults["rate"].default
    assert card["seed"] == defaults["seed"].default
    assert card.get("scenes") in (None, defaults["scenes"].default)
