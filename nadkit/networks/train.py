"""Train a bundled network: `python -m nadkit.networks.train resnet-fashion`.

Seeded, resumable (after every epoch), on the CPU or a GPU. Writes the weights as safetensors, with the
model card in the file's metadata, where `nadkit.load_network` finds them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from nadkit.errors import NadkitError, closest
from nadkit.images import Images, load_images
from nadkit.networks import BUNDLED, DATA, fresh_network, hash_weights

BATCH = 128
EPOCHS = {name: 16 if name.endswith("fashion") else 12 for name in BUNDLED} | {"darts-fashion": 14}
"""How long the shipped weights were trained."""


def _pictures(source: str, split: str, scenes_per_class: int) -> Images:
    """Return the full data: all of Fashion-MNIST, or as many rendered scenes as asked."""
    if source == "fashion":
        return load_images("fashion", split="train" if split == "train" else "test", full=True)
    return load_images("scenes", split="train" if split == "train" else "test", per_class=scenes_per_class)


def _augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the pictures and move each by up to two pixels; drawn on the CPU, so alike everywhere."""
    flip = torch.rand(len(pixels), generator=generator) < 0.5
    pixels = torch.where(flip.to(pixels.device)[:, None, None, None], pixels.flip(-1), pixels)
    dy, dx = (int(torch.randint(-2, 3, (), generator=generator)) for _ in range(2))
    return torch.roll(nn.functional.pad(pixels, (2, 2, 2, 2), mode="replicate"), (dy, dx), (2, 3))[
        :, :, 2:-2, 2:-2
    ]


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Return the share of pictures whose largest logit is their class's, 0-1; leaves evaluation mode on.

    Parameters
    ----------
    model : the module
    inputs : (N, C, H, W), what the module takes; N at least 1
    labels : (N,) int64
    """
    model.eval()
    hits = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(inputs.split(500), labels.split(500), strict=True)
    )
    return hits / len(labels)


def train(
    name: str,
    *,
    epochs: int | None = None,
    rate: float = 0.1,
    seed: int = 0,
    scenes: int = 6000,
    folder: Path = DATA,
    scratch: Path = Path("build"),
    device: str | None = None,
) -> Path:
    """Train one bundled network from the full data and return the path of its weights.

    Parameters
    ----------
    name : one of the eight bundled names, such as `"resnet-fashion"`
    epochs : passes over the training pictures; by default as many as the shipped weights took
    rate : largest step of SGD with momentum 0.9; it rises over the first fifth and falls to 0 by a cosine
    seed : decides the start, the order and the augmentation; 0
    scenes : rendered training pictures a class; Fashion-MNIST is always taken whole
    folder : where the weights go; the package's own data folder
    scratch : where the state after each epoch is kept, to resume from; `build`
    device : `"cpu"` or `"cuda"`; a GPU where there is one

    Raises
    ------
    NadkitError
        The name is not a bundled network's, `epochs` is below 1, `rate` is not above 0, or the state to
        resume from is damaged or has other settings.
    """
    _check_name(name)
    epochs = EPOCHS[name] if epochs is None else epochs
    if epochs < 1 or not 0 < rate < math.inf:
        raise NadkitError(
            f"a training needs epochs of at least 1 and a rate above 0, got {epochs} and {rate}"
        )
    source = name.split("-")[1]
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    images = _pictures(source, "train", scenes)
    network = fresh_network(name, seed=seed)
    model = network.model.to(device)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    inputs = network.preprocess(images.pixels[:]).to(device)
    labels = images.labels.to(device)
    steps = math.ceil(len(inputs) / BATCH)
    momentum = {key: torch.zeros_like(p) for key, p in model.named_parameters()}
    settings: dict[str, object] = {"name": name, "epochs": epochs, "rate": rate, "seed": seed}
    if source == "scenes":
        settings["scenes"] = scenes
    state = scratch / f"{name}.state.safetensors"
    done = _resume(state, settings, model, momentum)
    for epoch in range(done, epochs):
        # One generator per epoch, so that a resumed training sees the same pictures in the same order.
        generator = torch.Generator().manual_seed(seed * 1000 + epoch)
        order = torch.randperm(len(inputs), generator=generator)
        model.train()
        bar = tqdm(
            range(steps), desc=f"{name} {epoch + 1}/{epochs}", leave=False, disable=not sys.stderr.isatty()
        )
        for step in bar:
            at = (epoch + step / steps) / epochs
            now = rate * (at / 0.2 if at < 0.2 else 0.5 * (1 + math.cos(math.pi * (at - 0.2) / 0.8)))
            rows = order[step * BATCH : (step + 1) * BATCH].to(device)
            loss = nn.functional.cross_entropy(model(_augment(inputs[rows], generator)), labels[rows])
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for (key, p), gradient in zip(model.named_parameters(), gradients, strict=True):
                    decay = 5e-4 if p.ndim > 1 else 0.0
                    momentum[key].mul_(0.9).add_(gradient).add_(p, alpha=decay)
                    p.sub_(momentum[key], alpha=now)
            bar.set_postfix(loss=f"{loss.item():.3f}")
        _keep(state, {**settings, "done": epoch + 1}, model, momentum)
    return _ship(name, model, network.preprocess, settings, folder, state)


def _check_name(name: str) -> None:
    if name not in BUNDLED:
        raise NadkitError(f"no bundled network {name!r}; {closest(str(name), BUNDLED)}")


def _keep(
    state: Path, settings: Mapping[str, object], model: nn.Module, momentum: Mapping[str, Tensor]
) -> None:
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()} | {
        f"momentum/{k}": v for k, v in momentum.items()
    }
    state.parent.mkdir(parents=True, exist_ok=True)
    part = state.with_suffix(".part")
    save_file(
        {k: v.cpu().contiguous().clone() for k, v in tensors.items()},
        part,
        {"settings": json.dumps(settings)},
    )
    os.replace(part, state)


def _resume(
    state: Path, settings: Mapping[str, object], model: nn.Module, momentum: Mapping[str, Tensor]
) -> int:
    if not state.exists():
        return 0
    try:
        with safe_open(state, "pt") as file:
            kept = json.loads(file.metadata()["settings"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        done = int(kept.pop("done"))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise NadkitError(f"{state} is no state of a training ({error}); remove it to start over") from None
    if kept != settings:
        raise NadkitError(
            f"{state} holds a training with other settings ({kept}); remove it to start over with {settings}"
        )
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model/")})
    for key, value in momentum.items():
        value.copy_(tensors[f"momentum/{key}"])
    return done


def _ship(
    name: str,
    model: nn.Module,
    preprocess: Callable[[Tensor], Tensor],
    settings: Mapping[str, object],
    folder: Path,
    state: Path,
) -> Path:
    family, source = name.split("-")
    device = next(model.parameters()).device
    test = _pictures(source, "test", 1000)
    subset = load_images(source, split="test")  # what is shipped, 200 a class
    measured = {
        "test_accuracy": accuracy(model, preprocess(test.pixels[:]).to(device), test.labels.to(device)),
        "test_pictures": len(test),
        "test_accuracy_200_a_class": accuracy(
            model, preprocess(subset.pixels[:]).to(device), subset.labels.to(device)
        ),
    }
    model = model.cpu()
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # missing in torch's types
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(preprocess(subset.pixels[:1]))
    tensors = {
        k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    card = {
        "name": name,
        "family": family,
        "data": "Fashion-MNIST, all 60,000 training pictures"
        if source == "fashion"
        else f"rendered scenes, {settings['scenes']} a class",
        "command": f"python -m nadkit.networks.train {name} "
        + " ".join(f"--{k} {settings[k]}" for k in ("epochs", "rate", "seed", "scenes") if k in settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "mflop_per_image": counter.get_total_flops() / 1e6,
        "weights_id": hash_weights(tensors),
        **settings,
        **measured,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    part = path.with_suffix(".part")
    save_file(tensors, part, {"card": json.dumps(card, sort_keys=True)})
    part.chmod(0o644)  # safetensors lets only the writer read; an installed package is for everyone
    os.replace(part, path)
    state.unlink(missing_ok=True)
    return path


def main(arguments: list[str] | None = None) -> None:
    """Train the networks named on the command line.

    Parameters
    ----------
    arguments : such as `["vgg-fashion", "--epochs", "16"]`; those of the process by default

    Raises
    ------
    NadkitError
        A name is not a bundled network's; nothing is trained then.
    """
    parser = argparse.ArgumentParser(prog="python -m nadkit.networks.train", description=__doc__)
    parser.add_argument("names", nargs="+", help="bundled names, or `all`")
    parser.add_argument("--epochs", type=int, help="by default as many as the shipped weights took")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=6000, help="rendered training pictures a class")
    parser.add_argument("--folder", type=Path, default=DATA, help="where the weights go")
    parser.add_argument("--device", default=None)
    options = parser.parse_args(arguments)
    names = list(BUNDLED) if options.names == ["all"] else options.names
    for name in names:
        _check_name(name)
    for name in names:
        path = train(
            name,
            epochs=options.epochs,
            rate=options.rate,
            seed=options.seed,
            scenes=options.scenes,
            folder=options.folder,
            device=options.device,
        )
        sys.stdout.write(f"{path} {path.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
