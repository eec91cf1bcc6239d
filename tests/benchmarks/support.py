"""Write docs/support.md: what nadkit can tap in networks of torchvision and timm, and what not and why.

`python tests/benchmarks/support.py` looks at all of them, with random weights and small inputs; about a
minute.
It needs torchvision and timm.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import torch

import nadkit as nk
from nadkit.networks import Network

sys.path.insert(0, str(Path(__file__).parents[1]))
from vision_models import CLASSES, MODELS, build, vision

PAGE = Path(__file__).parents[2] / "docs" / "support.md"


def unit_kinds(table: pd.DataFrame) -> str:
    """Say where the units of the recommended places lie, such as "9 × maps"."""
    kinds = {(4, 1): "maps", (4, 3): "channels last", (3, 2): "tokens", (3, 1): "rows", (2, 1): "vectors"}
    chosen = table[table["recommended"]]
    counts = Counter(
        kinds.get((len(shape), int(axis)), "other")
        for shape, axis in zip(chosen["shape"], chosen["axis"], strict=True)
    )
    return ", ".join(f"{count} × {kind}" for kind, count in counts.items())


def look_at(name: str) -> tuple[dict[str, str], Counter[str]]:
    """Return a model's row, and why its other places cannot be tapped."""
    model, x = build(name)
    table = nk.layers(model, x)
    usable = table[table["tappable"]]
    network = Network.wrap(model, CLASSES, example=x, layers=list(usable["address"]))
    ones = {address: torch.ones(len(x), layer.units) for address, layer in network.layers.items()}
    with torch.no_grad():
        plain = network.logits(x)
        with nk.Taps(network, (), gates=ones, rows=torch.arange(len(x))):
            same = torch.equal(network.logits(x), plain)
    ran, idle = table[table["calls"] > 0], table[table["calls"] == 0]
    dead = idle["reason"].str.startswith("dead")
    modules = ran[ran["type"] != "function"]
    row = {
        "network": name.replace(":", " "),
        "places": f"{len(ran)}",
        "tappable": f"{len(usable)}",
        "`auto`": f"{int(table['recommended'].sum())}",
        "units of `auto`": unit_kinds(table),
        "functions": f"{int((usable['type'] == 'function').sum())}",
        "heads": f"{int(usable['address'].str.contains(':heads').sum())}",
        "dead": f"{int(dead.sum())}",
        "did not run": f"{int((~dead).sum())}",
        "repeated": f"{modules[modules['calls'] > 1]['address'].str.split('#').str[0].nunique()}",
        "overwritten": f"{int((ran['in_place'] != '').sum())}",
        "feed a norm": f"{int(ran['feeds_norm'].sum())}",
        "gates of one": "bit-identical" if same else "DIFFER",
    }
    reasons = Counter(table[(~table["tappable"]) & (table["calls"] > 0)]["reason"])
    return row, reasons


def page(rows: list[dict[str, str]], reasons: dict[str, Counter[str]], versions: str) -> str:
    """Return the text of docs/support.md."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    why = Counter[str]()
    where: dict[str, list[str]] = {}
    for name, found in reasons.items():
        for reason, count in found.items():
            why[reason] += count
            where.setdefault(reason, []).append(name.partition(":")[2])
    said = [
        f"* {reason}: {count} places, in {', '.join(where[reason])}" for reason, count in why.most_common()
    ]
    text = f"""# Networks of others

Made by `python tests/benchmarks/support.py` ({versions}), with random weights and small inputs. Any
`nn.Module`
that turns pictures into logits can be wrapped; these are the ones that every promise is tested on
(`tests/test_vision.py`): records equal those of a forward without hooks, gates of one on *all* tappable
places,
a row for each picture, change no bit, a gate of zero removes its unit and nothing else, masks are
learned, a
sub-architecture is extracted, and nothing is left in the model. `print(nk.layers(model, example))`
lists the
places of any network.

* places: calls of modules and of functions that matter (sums, joins, activations, attention heads) in one
  forward; `auto`: those that `Network.wrap` takes by default: outputs of blocks, or activations inside
  blocks whose output feeds a normalisation; never a place that feeds one, and none whose units are the
  classes ([the rule](how-to/your-own-network.md#what-auto-takes)).
* dead: modules that are never called although their weights are read, such as an attention's
  projection; did not
  run: the others that are there but idle, such as auxiliary heads and empty branches.
* repeated: modules that run more than once, each call with an address of its own; overwritten: places
  into whose
  output something later writes (records are copies from before that).

{chr(10).join(lines)}

## What cannot be tapped

{chr(10).join(said)}

Instead of a dead projection tap the heads it reads (`…attn:heads`, all layers of them with the pattern
`"**:heads"`). Heads are told by a softmax before the product, or by torch's own attention; an attention
without either has no such place. An output of several tensors has its parts inside or after it. Scores of
an attention say who looks at whom, which are no units; where an axis is known to you, give it:
`layers={{address: axis}}`. Names of modules with `:` or `#` in them cannot be addressed.

Refused by name: scripted, traced and compiled models, `DataParallel` and `DistributedDataParallel`
(take the
module they were made from), and running a tapped model in another thread. Places of functions and heads
can be
gated, recorded, learned, extracted and drawn, but not cut out by `nk.export`. Samples must lie on axis
0, or be
folded into it one after another, as windows are; modules that take tokens first (`batch_first=False`)
are listed
with that reason, their heads can be tapped. What a model reads past its modules' outputs
(`self.relu(x)` for the
side effect alone) cannot be gated.
"""
    return re.sub(r"(?<=[^\n|])\n *(?=[^\n|*# ])", " ", text)  # a paragraph or an item is one line


def main() -> None:
    """Look at every network and write the page."""
    torch.set_num_threads(1)
    libraries = [f"{name} {vision(name).__version__}" for name in ("torchvision", "timm")]
    rows, reasons = [], {}
    for name in MODELS:
        row, reasons[name] = look_at(name)
        rows.append(row)
        print(" ".join(row.values()), flush=True)
    PAGE.write_text(page(rows, reasons, ", ".join([f"torch {torch.__version__}", *libraries])))


if __name__ == "__main__":
    main()
