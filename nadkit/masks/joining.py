"""What becomes of the meta when tasks are chosen or sets of masks are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nadkit.errors import NadkitError

# Entries that are a list with one item for every task.
_PER_TASK = ("permutation",)
_SAME = ("network", "weights_id", "class_names")


def select_meta(meta: Mapping[str, object], tasks: Sequence[str], chosen: Sequence[str]) -> dict[str, object]:
    """Return the meta of some of the tasks: per-task lists cut to them, and what a join listed by parts.

    Examples
    --------
    >>> select_meta({"seed": 0, "permutation": [2, 0, 1]}, ["a", "b", "c"], ["b"])
    {'seed': 0, 'permutation': [0]}
    """
    left = dict(meta)
    for key in _PER_TASK:
        entry = left.get(key)
        if isinstance(entry, list) and len(entry) == len(tasks):
            left[key] = [entry[tasks.index(task)] for task in chosen]
    parts = left.get("parts")
    if isinstance(parts, list) and all(isinstance(part, dict) and "tasks" in part for part in parts):
        parts = [part for part in parts if set(part["tasks"]) & set(chosen)]
        left["parts"] = parts
        if len(parts) == 1:
            del left["parts"]
            left.update(
                select_meta({k: v for k, v in parts[0].items() if k != "tasks"}, parts[0]["tasks"], chosen)
            )
    return left


def join_meta(tasks: Sequence[Sequence[str]], metas: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return what all parts agree on, per-task lists end to end, and under `parts` what differs.

    Examples
    --------
    >>> join_meta([["a"], ["b"]], [{"network": "net", "seed": 0}, {"network": "net", "seed": 1}])
    {'network': 'net', 'parts': [{'seed': 0, 'tasks': ['a']}, {'seed': 1, 'tasks': ['b']}]}

    Raises
    ------
    NadkitError
        The parts are for different networks or weights.
    """
    for key in _SAME:
        values = [meta[key] for meta in metas if meta.get(key) is not None]
        if any(value != values[0] for value in values):
            raise NadkitError(
                f"masks with different {key} cannot be joined (first: {values[0]}); join masks of one network"
            )
    joined: dict[str, object] = {}
    differing: list[str] = []
    for key in dict.fromkeys(key for meta in metas for key in meta):
        entries = [meta.get(key) for meta in metas]
        lists = [entry for entry in entries if isinstance(entry, list)]
        fits = len(lists) == len(metas) and all(len(x) == len(y) for x, y in zip(lists, tasks, strict=True))
        if key in _PER_TASK and fits:
            joined[key] = [item for entry in lists for item in entry]
        elif all(key in meta and meta[key] == metas[0][key] for meta in metas):
            joined[key] = metas[0][key]
        elif key in _SAME:
            joined[key] = next(entry for entry in entries if entry is not None)
        else:
            differing.append(key)
    if differing:
        joined["parts"] = [
            {**{key: meta[key] for key in differing if key in meta}, "tasks": list(names)}
            for names, meta in zip(tasks, metas, strict=True)
        ]
    return joined
