"""Learning: against a slow serial copy of the released loop, and every way to be interrupted."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from nadkit import learn_masks
from nadkit.errors import ImageError, NadkitError
from nadkit.images import Images
from nadkit.learn import Objective, Official, OneVsRest, bundle
from nadkit.learn.learner import balanced_accuracy
from nadkit.learn.objectives import ranks
from nadkit.learn.problem import Stream, derangement, set_up
from nadkit.learn.run import Run
from nadkit.networks import Network, restore_untrained

CLASSES = ("ant", "bee", "cat")


def noise():
    generator = torch.Generator().manual_seed(5)
    return torch.rand(600, 1, 8, 8, generator=generator) * torch.rand(600, 1, 1, 1, generator=generator)


@pytest.fixture(scope="module")
def network() -> Network:
    """Return a small network in float64, where a gate's last bit cannot flip a rank by rounding."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.6)
    return Network.wrap(model, CLASSES, example=torch.zeros(1, 1, 8, 8), layers=["1", "4"], name="small")


@pytest.fixture(scope="module")
def able(network: Network, images: Images) -> Network:
    """Return the same network with a last layer that is right on the pictures, and sure of it."""
    model = copy.deepcopy(network.model)
    with torch.no_grad():
        model[7].bias.sub_(network(noise()).mean(0)).mul_(300)
        model[7].weight.mul_(300)
    return Network.wrap(model, CLASSES, example=images.pixels[:1], layers=["1", "4"], name="able")


@pytest.fixture(scope="module")
def images(network: Network) -> Images:
    """Return 14 noise pictures a class, labelled so that the network is right on some only."""
    pixels = noise()
    with torch.no_grad():
        answers = network(pixels).sub(network(pixels).mean(0)).argmax(1)
    chosen = torch.cat([(answers == k).nonzero().flatten()[:14] for k in range(3)])
    return Images(pixels[chosen], answers[chosen], CLASSES)


def scores_differ(a, b) -> float:
    return max(float((a.scores[k] - b.scores[k]).abs().max()) for k in a.scores)


def slow_official(
    network: Network, images: Images, task: int, *, beta: float, steps: int, batch: int, seed: int
):
    """Return one task's scores by the released loop: one picture at a time, layers gated by hand."""
    conv1, conv2, linear = network.model[0], network.model[3], network.model[7]

    def forward(x, gate1, gate2):
        one = torch.relu(conv1(x)) * gate1[:, None, None]
        two = torch.relu(conv2(F.max_pool2d(one, 2))) * gate2[:, None, None]
        return linear(two.mean((2, 3))), one, two

    start = Official().start(11, torch.Generator().manual_seed(seed * 7919 + task + 1)).double()
    mask = [start[:6].clone(), start[6:].clone()]
    pool = (images.labels == task).nonzero().flatten()
    stream = Stream(pool, batch, seed * 7919 + 2 * task)
    for step in range(steps):
        leaves = [m.clone().requires_grad_(True) for m in mask]
        index = stream.take(step)
        errors, squares, correct = [], [torch.zeros(()).double()] * 2, 0
        for i in index.tolist():
            x = images.pixels[i : i + 1].double()
            out, *gated = forward(x, leaves[0].sigmoid(), leaves[1].sigmoid())
            with torch.no_grad():
                whole, *reference = forward(x, torch.ones(6).double(), torch.ones(5).double())
            errors.append(-torch.log_softmax(out, 1)[0, task])
            if int(whole.argmax()) == task:
                correct += 1
                squares = [
                    s + ((g - r) ** 2).mean() for s, g, r in zip(squares, gated, reference, strict=True)
                ]
        if correct == 0:
            continue
        loss = (sum(errors) / len(errors) + sum(s / correct for s in squares)) / 2
        loss = loss + beta / 2 * sum((leaf.sigmoid() ** 2).mean() for leaf in leaves)
        gradients = torch.autograd.grad(loss, leaves)
        mask = [m - 0.1 * g / g.norm() for m, g in zip(mask, gradients, strict=True)]
    return {"1": mask[0].sigmoid(), "4": mask[1].sigmoid()}


def test_the_share_falls_by_a_power_of_what_is_left_of_the_ramp():
    share = torch.tensor([0.2])
    even, early = OneVsRest(ramp=0.8, bend=1.0), OneVsRest(ramp=0.8)  # by the power 3
    assert [float(even.kept_share(share, at)) for at in (0, 0.4, 0.8, 1)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert [float(early.kept_share(share, at)) for at in (0, 0.4, 0.8, 1)] == pytest.approx(
        [1, 0.3, 0.2, 0.2]
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ramp": 0}, "ramp is the part of the run"),
        ({"ramp": 1.1}, "ramp is the part of the run"),
        ({"bend": 0}, "bend is a power above 0"),
        ({"bend": -1.0}, "bend is a power above 0"),
        ({"spread": 0.0}, "None for no bound; got 0.0"),
        ({"spread": float("nan")}, "spread bounds a standard deviation"),
    ],
)
def test_a_share_that_cannot_fall_and_a_bound_of_nothing_are_refused(wrong: dict, words: str):
    with pytest.raises(NadkitError, match=words):
        OneVsRest(**wrong)


def test_what_is_bundled_is_learned_for_the_objective_that_is_said(monkeypatch, tmp_path):
    asked = []

    class Masks:
        def save(self, path):
            path.write_bytes(b"x")

    def learn(*_, objective, shared, control, **settings):
        asked.append((objective, shared, control, settings["seed"]))
        return Masks()

    monkeypatch.setattr(bundle, "learn_masks", learn)
    monkeypatch.setattr(bundle, "mask_path", lambda *_, **job: tmp_path / str(job["control"]))
    bundle.bundle("darts-scenes", first=4, scratch=tmp_path / "scratch")
    bounded = OneVsRest(spread=2.0, ramp=0.85, bend=1.5)
    assert asked == [
        (bounded, False, None, 0), (bounded, False, "relabelled", 0), (bounded, True, None, 0),
        (bounded, False, "untrained", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_official_equals_the_slow_serial_loop_step_by_step(network, images, steps):
    masks = learn_masks(
        network, images, objective="official", beta=0.3, steps=steps, batch_size=4, seed=2, progress=False
    )
    for task, name in enumerate(CLASSES):
        slow = slow_official(network, images, task, beta=0.3, steps=steps, batch=4, seed=2)
        for address, values in slow.items():
            assert torch.allclose(masks[name].scores[address][0].double(), values, atol=1e-5), (name, address)


def test_official_skips_a_step_without_a_correct_picture(network, images):
    wrong = Images(images.pixels, (images.labels + 1) % 3, CLASSES)
    with torch.no_grad():
        assert not bool((network(wrong.pixels).argmax(1) == wrong.labels).all())
    start = learn_masks(network, wrong, objective="official", beta=1.0, steps=1, progress=False)
    problem = set_up(network, wrong, None, None, 0)
    skipped = []
    for task, name in enumerate(CLASSES):
        first = Official().start(11, torch.Generator().manual_seed(task + 1)).sigmoid()
        moved = not torch.allclose(torch.cat([s[0] for s in start[name].scores.values()]), first)
        drawn = Stream(problem.own(task), 16, 2 * task).take(0)
        assert moved == bool((problem.answer == problem.labels)[drawn].any())
        skipped.append(not moved)
    assert any(skipped)
    assert not all(skipped)


def test_official_moves_every_layer_by_a_tenth():
    logits, gradient = torch.zeros(2, 7), torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    after = Official().step(logits, gradient * 1e-6, torch.zeros(2, 2, 7), 1, 0.0, [3, 4])
    for part in after.split([3, 4], 1):
        assert torch.allclose(part.norm(dim=1), torch.full((2,), 0.1), atol=1e-4)


def test_official_default_length_is_twenty_epochs_of_sixteen():
    assert Official().steps(400) == 500
    assert Official().steps(33) == 60


@pytest.mark.parametrize(("objective", "extra"), [("official", {"beta": 0.5}), ("one-vs-rest", {})])
def test_tasks_one_by_one_and_together_give_the_same_scores(network, images, objective, extra):
    settings = {"objective": objective, "steps": 12, "progress": False, **extra}
    together = learn_masks(network, images, **settings)
    for name in CLASSES:
        assert scores_differ(together[name], learn_masks(network, images, tasks=[name], **settings)) <= 1e-5


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 1.0])
def test_one_vs_rest_reaches_the_share_asked_within_a_unit(network, images, share):
    masks = learn_masks(network, images, kept_share=share, steps=5, progress=False)
    for kept in masks.kept_share().values():
        assert abs(kept - max(share, 1 / 11)) <= 0.5 / 11 + 1e-9


def test_each_task_may_have_a_share_of_its_own(network, images):
    wanted = {"ant": 2 / 11, "bee": 5 / 11, "cat": 9 / 11}
    masks = learn_masks(network, images, kept_share=wanted, steps=5, progress=False)
    assert masks.kept_share() == pytest.approx(wanted)
    assert learn_masks(
        network, images, kept_share=list(wanted.values()), steps=5, progress=False
    ) == masks.with_meta(settings={**masks.meta["settings"]})


def test_same_seed_same_masks_and_no_trace_of_the_global_generator(network, images):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = learn_masks(network, images, steps=6, progress=False, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert scores_differ(first, learn_masks(network, images, steps=6, progress=False, seed=4)) == 0
    assert scores_differ(first, learn_masks(network, images, steps=6, progress=False, seed=5)) > 0


def test_network_is_left_as_it_was_also_when_interrupted(network, images):
    model = network.model
    model.train()
    model[0].eval()
    model[0].weight.requires_grad_(True)
    model[3].weight.requires_grad_(False)
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]

    def stop(_progress):
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            learn_masks(network, images, steps=5, progress=False, callback=stop)
        assert [m.training for m in model.modules()] == modes
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    finally:
        model.eval()


@pytest.mark.parametrize(("objective", "extra"), [("official", {"beta": 0.5}), ("one-vs-rest", {})])
def test_an_interrupted_run_resumes_to_the_same_result(network, images, tmp_path, objective, extra):
    settings = {"objective": objective, "steps": 40, "progress": False, **extra}
    straight = learn_masks(network, images, **settings)
    path = tmp_path / "run"

    def interrupt(progress):
        if progress.step >= 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_masks(network, images, checkpoint=path, callback=interrupt, **settings)
    assert path.exists()
    seen = []
    resumed = learn_masks(
        network, images, checkpoint=path, callback=lambda p: seen.append(p.step), **settings
    )
    assert scores_differ(straight, resumed) == 0
    assert min(seen) > 12  # it went on; it did not start over
    assert resumed.history.equals(straight.history)


def test_a_checkpoint_of_other_settings_or_another_file_is_refused(network, images, tmp_path):
    path = tmp_path / "run"
    learn_masks(network, images, steps=4, progress=False, checkpoint=path)
    kept = path.read_bytes()
    with pytest.raises(NadkitError, match=r"other settings.*seed: 0 there, 1 asked"):
        learn_masks(network, images, steps=4, progress=False, checkpoint=path, seed=1)
    assert path.read_bytes() == kept
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(NadkitError, match="no checkpoint"):
        learn_masks(network, images, steps=4, progress=False, checkpoint=path)


def test_callback_sees_progress_and_can_stop(network, images):
    seen = []

    def watch(progress):
        seen.append(progress)
        return progress.step >= 10

    masks = learn_masks(network, images, steps=40, progress=False, callback=watch)
    assert seen[-1].step == 10
    assert seen[0].tasks == CLASSES
    assert len(seen[0].loss) == len(seen[0].kept_share) == 3
    assert masks.history["step"].max() == 10
    assert masks.kept_share()["ant"] == pytest.approx(3 / 11)


def test_history_is_a_table_of_steps_tasks_loss_and_share(network, images):
    history = learn_masks(network, images, steps=40, progress=False).history
    assert list(history.columns) == ["step", "task", "loss", "kept_share"]
    assert len(history) == 20 * 3
    assert history["kept_share"].iloc[-1] == pytest.approx(3 / 11)
    assert history["kept_share"].iloc[0] > history["kept_share"].iloc[-1]


def test_shared_control_learns_one_mask_for_all(network, images):
    masks = learn_masks(network, images, steps=6, progress=False, shared=True)
    assert masks.meta["control"] == "shared"
    for values in masks.scores.values():
        assert torch.equal(values[0], values[1])
        assert torch.equal(values[0], values[2])


def test_relabelled_control_accepts_another_class(network, images):
    masks = learn_masks(network, images, steps=6, progress=False, control="relabelled")
    moved = masks.meta["permutation"]
    assert sorted(moved) == [0, 1, 2]
    assert all(k != v for k, v in enumerate(moved))
    problem = set_up(network, images, None, "relabelled", 0)
    for row, k in enumerate(moved):
        assert bool((images.labels[problem.own(row)] == k).all())
        assert int(problem.logit[row]) == row


def test_untrained_control_can_be_made_again_from_its_meta(network, images):
    masks = learn_masks(network, images, steps=6, progress=False, control="untrained")
    again = restore_untrained(network, masks.meta["untrained"])
    fresh = set_up(network, images, None, "untrained", 0).network
    assert torch.equal(again(images.pixels), fresh(images.pixels))
    assert not torch.allclose(again(images.pixels), network(images.pixels))
    masks.check(network)


def test_derangement_moves_everything():
    for seed in range(30):
        moved = derangement([2, 5, 7, 9], seed)
        assert sorted(moved.values()) == [2, 5, 7, 9]
        assert all(k != v for k, v in moved.items())


def test_streams_visit_every_picture_once_an_epoch():
    stream = Stream(torch.arange(10, 21), 4, seed=1)
    epochs = [torch.cat([stream.take(s) for s in range(3 * e, 3 * e + 3)]).tolist() for e in range(2)]
    assert [sorted(e) for e in epochs] == [list(range(10, 21))] * 2
    assert epochs[0] != epochs[1]
    assert Stream(torch.arange(10, 21), 4, seed=1).take(4).tolist() == epochs[1][4:8]


def test_gates_are_hard_and_the_gradient_reaches_removed_units():
    logits = torch.tensor([[0.3, -0.2, 0.9, 0.0]], requires_grad=True)
    gates = OneVsRest().gates(logits, torch.tensor([2]))
    assert gates.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    (gradient,) = torch.autograd.grad((gates * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum(), logits)
    assert bool((gradient != 0).all())


def test_scores_keep_the_order_and_exactly_the_number_also_with_ties():
    logits = torch.tensor([[0.0, 0.0, 0.0, 1.0], [3.0, 2.0, 1.0, 0.0]])
    for kept in ([1, 1], [2, 3], [4, 4]):
        scores = OneVsRest().scores(logits, torch.tensor(kept))
        assert (scores > 0.5).sum(1).tolist() == kept
        assert bool(((scores >= 0) & (scores <= 1)).all())
    assert OneVsRest().scores(logits, torch.tensor([2, 2]))[1].argsort(descending=True).tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_ranks_count_from_the_largest_and_break_ties_by_place():
    assert ranks(torch.tensor([[1.0, 3.0, 1.0, 2.0]])).tolist() == [[2, 0, 3, 1]]


def test_step_does_not_depend_on_a_layers_width_or_the_losss_scale():
    gradient = torch.tensor([[1.0, -2.0, 0.5]])
    small = OneVsRest().step(torch.zeros(1, 3), gradient, torch.zeros(2, 1, 3), 1, 0.0, [3])
    scaled = OneVsRest().step(torch.zeros(1, 3), gradient * 1e-4, torch.zeros(2, 1, 3), 1, 0.0, [3])
    wide = OneVsRest().step(torch.zeros(1, 9), gradient.repeat(1, 3), torch.zeros(2, 1, 9), 1, 0.0, [3, 6])
    assert torch.allclose(small, scaled, rtol=1e-4)
    assert torch.allclose(small.repeat(1, 3), wide, rtol=1e-4)


def test_official_bisects_beta_towards_the_share(network, images):
    masks = learn_masks(network, images, objective="official", kept_share=0.5, batch_size=7, progress=False)
    settings = masks.meta["settings"]
    kept = list(masks.kept_share().values())
    assert settings["missed_share_by"] == pytest.approx([abs(k - 0.5) for k in kept], abs=1e-6)
    assert max(settings["missed_share_by"]) <= 0.2
    assert len(settings["beta"]) == 3
    again = learn_masks(
        network,
        images,
        tasks=["bee"],
        objective="official",
        beta=settings["beta"][1],
        batch_size=7,
        progress=False,
    )
    assert scores_differ(again, masks["bee"]) <= 1e-5


def test_auto_finds_a_share_that_is_faithful(able, images):
    masks = learn_masks(able, images, kept_share="auto", steps=60, progress=False)
    settings = masks.meta["settings"]
    problem = set_up(able, images, None, None, 0)
    assert min(settings["goal"]) > 0.7  # that of a constant answer is below 0.5
    assert all(settings["reached"])
    reached = balanced_accuracy(problem, torch.cat(list(masks.scores.values()), 1).double())
    assert all(value >= goal for value, goal in zip(reached.tolist(), settings["goal"], strict=True))
    fewer = learn_masks(able, images, kept_share=1 / 11, steps=60, progress=False)
    least = balanced_accuracy(problem, torch.cat(list(fewer.scores.values()), 1).double())
    assert masks.history.groupby("run")["step"].max().tolist() == [60] * 6
    assert bool((least < torch.tensor(settings["goal"])).any())  # so the search had something to find


@pytest.mark.parametrize(
    ("settings", "phase"),
    [({"kept_share": "auto"}, "auto"), ({"objective": "official", "kept_share": 0.5}, "beta")],
)
def test_an_interrupted_search_resumes_to_the_same_result(able, images, tmp_path, settings, phase):
    settings = {**settings, "steps": 20, "progress": False}
    straight = learn_masks(able, images, **settings)
    calls = []

    def interrupt(progress):
        calls.append(progress.step)
        if len(calls) == 47:  # in the middle of the third run of six
            raise KeyboardInterrupt

    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        learn_masks(able, images, checkpoint=path, callback=interrupt, **settings)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"run.{phase}{n}of6" for n in (1, 2, 3)]
    again = []
    resumed = learn_masks(able, images, checkpoint=path, callback=lambda p: again.append(p.step), **settings)
    assert len(again) == 6 * 20 - 46
    assert resumed == straight
    assert resumed.history.equals(straight.history)


@pytest.mark.parametrize("settings", [{"kept_share": "auto"}, {"objective": "official"}])
def test_callback_stops_a_search_at_once(network, images, settings):
    calls = []

    def stop(progress):
        calls.append(progress.step)
        return True

    learn_masks(network, images, steps=20, progress=False, callback=stop, **settings)
    assert calls == [1]


def test_an_interrupt_while_saving_leaves_the_last_checkpoint(network, images, tmp_path, monkeypatch):
    path, settings = tmp_path / "run", {"steps": 20, "progress": False}
    saves = []

    def save(tensors, part, metadata):
        saves.append(part)
        if len(saves) == 3:
            part.write_bytes(b"half")
            raise KeyboardInterrupt
        save_file(tensors, part, metadata)

    monkeypatch.setattr("nadkit.learn.run.save_file", save)
    with pytest.raises(KeyboardInterrupt):
        learn_masks(network, images, checkpoint=path, **settings)
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    seen = []
    resumed = learn_masks(
        network, images, checkpoint=path, callback=lambda p: seen.append(p.step), **settings
    )
    assert seen[0] == 3
    assert resumed == learn_masks(network, images, **settings)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_learning_works_where_the_caller_has_switched_gradients_off(network, images, mode):
    straight = learn_masks(network, images, steps=4, progress=False)
    with mode():
        assert learn_masks(network, images, steps=4, progress=False) == straight


def test_an_official_objective_keeps_the_beta_it_was_made_with(able, images):
    settings = {"steps": 4, "progress": False}
    first = learn_masks(able, images, objective=Official(beta=0.5), **settings)
    second = learn_masks(able, images, objective="official", beta=0.5, **settings)
    assert first == second
    assert first.meta["settings"]["beta"] == pytest.approx([0.5] * 3)
    each = learn_masks(able, images, objective=Official(beta=torch.tensor([0.5, 9.0, 0.5])), **settings)
    assert scores_differ(each["ant"], first["ant"]) == 0
    assert scores_differ(each["bee"], first["bee"]) > 0


def test_fidelity_is_to_the_networks_own_answer_where_it_errs(able, images):
    turned = Images(images.pixels, (images.labels + (torch.arange(len(images)) % 5 == 0)) % 3, CLASSES)
    targets = []

    class Watch(OneVsRest):
        def loss(self, batch):
            targets.append((batch.target, batch.own))
            return super().loss(batch)

    learn_masks(able, turned, objective=Watch(own=60, rest=60), steps=1, progress=False)
    problem = set_up(able, turned, None, None, 0)
    with torch.no_grad():
        assert torch.equal(problem.answer, able(turned.pixels).argmax(1))
    ((target, own),) = targets
    wrong = (problem.answer != problem.labels).sum()
    assert wrong >= 5
    assert (target[own] == 0).sum() == wrong  # own pictures, each once: rejected where the network errs


def test_another_objective_can_be_given(network, images):
    class KeepFirst(Objective):
        name = "keep-first"

        def gates(self, logits, kept):  # noqa: ARG002 - the interface's names
            return torch.ones_like(logits) + logits - logits.detach()

        def loss(self, batch):
            return batch.per_task(batch.logits.square().mean(1))

        def step(self, logits, gradient, *_rest):
            return logits - gradient.sign()

    masks = learn_masks(network, images, objective=KeepFirst(), steps=2, batch_size=3, progress=False)
    assert masks.meta["objective"] == "keep-first"


def run_of(network, images):
    problem = set_up(network, images, None, None, 0)
    return Run(problem, OneVsRest(), torch.full((3,), 0.5).double(), [3, 3, 3], 0)


def test_the_share_falls_from_all_units_to_the_target(network, images):
    run = run_of(network, images)
    kept = [run.kept(at).tolist()[0] for at in (0.0, 0.1, 0.3, 1.0)]
    assert kept[0] == 11
    assert kept[-1] == 6
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"objective": "one-vs-rst"}, NadkitError, "closest: one-vs-rest"),
        ({"tasks": ["bea"]}, NadkitError, "closest: bee"),
        ({"tasks": []}, NadkitError, "at least one"),
        ({"tasks": ["bee", "bee"]}, NadkitError, "each once"),
        ({"control": "random"}, NadkitError, "relabelled, untrained"),
        ({"kept_share": 0.0}, NadkitError, r"\(0, 1\]"),
        ({"kept_share": 1.2}, NadkitError, r"\(0, 1\]"),
        ({"kept_share": float("nan")}, NadkitError, r"\(0, 1\]"),
        ({"kept_share": [0.1, 0.2]}, NadkitError, "2 kept shares for 3 tasks"),
        ({"kept_share": {"ant": 0.1}}, NadkitError, "each task once"),
        ({"kept_share": "half"}, NadkitError, "'auto'"),
        ({"kept_share": [0.1, 0.2, 0.3], "shared": True}, NadkitError, "one number"),
        ({"beta": 1.0}, NadkitError, "official"),
        ({"objective": "official", "beta": 0.0}, NadkitError, "above 0"),
        ({"objective": "official", "kept_share": "auto"}, NadkitError, "no kept share"),
        ({"steps": 0}, NadkitError, "1 or more"),
        ({"batch_size": 0}, NadkitError, "1 or more"),
        ({"steps": 2.5}, NadkitError, "whole number"),
        ({"seed": 0.5}, NadkitError, "whole number"),
        ({"tasks": "bee"}, NadkitError, r"\['bee'\]"),
        ({"kept_share": None}, NadkitError, "'auto'"),
        ({"kept_share": ["a", "b", "c"]}, NadkitError, "'auto'"),
        ({"objective": OneVsRest}, NadkitError, "an instance"),
        ({"objective": "official", "beta": float("inf")}, NadkitError, "finite"),
        ({"objective": Official(beta=torch.ones(2))}, NadkitError, "for 3 tasks"),
        ({"shared": True, "control": "untrained"}, NadkitError, "one by one"),
        ({"kept_share": "auto", "control": "relabelled"}, NadkitError, "masks.kept_share"),
    ],
)
def test_wrong_settings_say_what_is_there(network, images, settings, error, message):
    with pytest.raises(error, match=message):
        learn_masks(network, images, progress=False, **settings)


def test_pictures_that_cannot_be_learned_from_are_refused(network, images):
    few = images[torch.cat([torch.arange(0, 31), torch.tensor([31, 32])])]
    assert few.counts()["cat"] == 5
    learn_masks(network, few, steps=1, progress=False)
    with pytest.raises(ImageError, match=r"4 pictures of 'cat'"):
        learn_masks(network, few[torch.arange(32)], steps=1, progress=False)
    only = images.subset(["ant", "bee"])
    with pytest.raises(ImageError, match=r"0 pictures of 'cat'"):
        learn_masks(network, only, tasks=["cat"], steps=1, progress=False)
    assert learn_masks(network, only, steps=1, progress=False).tasks == ("ant", "bee")
    foreign = Images(images.pixels, images.labels, ("ant", "bee", "cow"))
    with pytest.raises(ImageError, match="'cow'"):
        learn_masks(network, foreign, steps=1, progress=False)
    with pytest.raises(ImageError, match="takes pictures of shape"):
        learn_masks(network, Images(images.pixels[..., :6], images.labels, CLASSES), steps=1, progress=False)


def test_pictures_changed_in_place_and_tasks_without_others_are_refused(network, images):
    def learn(pixels, labels, names=CLASSES):
        return learn_masks(network, Images(pixels, labels, names), steps=1, progress=False)

    with pytest.raises(ImageError, match="0 pictures of other classes"):
        learn_masks(network, images.of("ant"), tasks=["ant"], steps=1, progress=False)
    own = learn_masks(network, images.of("ant"), tasks=["ant"], steps=1, progress=False, objective="official")
    assert own.tasks == ("ant",)
    broken = Images(images.pixels.clone(), images.labels.clone(), CLASSES)
    broken.pixels[40, 0, 0, 0] = torch.nan
    with pytest.raises(ImageError, match="40"):
        learn_masks(network, broken, steps=1, progress=False)
    for label in (3, -1):
        broken = Images(images.pixels, images.labels.clone(), CLASSES)
        broken.labels[0] = label
        with pytest.raises(ImageError, match=f"label {label}"):
            learn_masks(network, broken, steps=1, progress=False)
    with pytest.raises(ImageError, match="takes pictures of shape"):
        learn(images.pixels.repeat(1, 3, 1, 1), images.labels)
    assert learn(images.pixels, images.labels, (*CLASSES, "cow")).tasks == CLASSES  # no picture of a cow
    assert learn((images.pixels * 255).to(torch.uint8), images.labels).tasks == CLASSES


def test_logits_that_are_not_finite_are_refused(images):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, x):
            return self.linear(x.flatten(1)) / (x.amax((1, 2, 3)) == 0)[:, None]

    broken = Network.wrap(Broken(), CLASSES, example=torch.zeros(1, 1, 8, 8), layers=["linear"])
    with pytest.raises(NadkitError, match=f"infinite logits for {len(images)} of {len(images)}"):
        learn_masks(broken, images, steps=1, progress=False)


@pytest.mark.parametrize("seed", [2**32 - 1, 2**63, -1])
def test_any_whole_number_is_a_seed(network, images, seed):
    masks = learn_masks(network, images, steps=1, progress=False, seed=seed, objective="official", beta=1.0)
    assert masks.meta["seed"] == seed


def test_classes_in_another_order_are_matched_by_name(network, images):
    turned = images.subset(["cat", "ant", "bee"])
    problem = set_up(network, turned, None, None, 0)
    assert problem.tasks == CLASSES
    for row, name in enumerate(CLASSES):
        assert int(problem.logit[row]) == row
        assert torch.equal(turned.pixels[problem.own(row)], images.of(name).pixels[:])
