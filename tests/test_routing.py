"""Routing paths: against a slow serial loop, by hand on a linear network, and what they fail to do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nadkit import learn_masks, load_images, load_masks, load_network
from nadkit.errors import ImageError, NadkitError
from nadkit.images import Images
from nadkit.learn import Routing, routing_per_picture
from nadkit.learn.problem import Stream, set_up
from nadkit.learn.routing import _route
from nadkit.learn.run import Run
from nadkit.networks import Network, gated_logits, log_odds

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def network() -> Network:
    """Return a small network in float64, whose modules the slow loop calls one by one."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.6)
        model[7].bias.sub_(Network.wrap(model, CLASSES, example=noise()[:1])(noise()).mean(0))
        for parameter in model[7].parameters():
            parameter.mul_(8)
    return Network.wrap(model, CLASSES, example=torch.zeros(1, 1, 8, 8), layers=["1", "4"], name="small")


def noise() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(600, 1, 8, 8, generator=generator) * torch.rand(600, 1, 1, 1, generator=generator)


@pytest.fixture(scope="module")
def images(network: Network) -> Images:
    """Return 12 pictures a class, of which the network answers some otherwise."""
    answers = network(noise()).argmax(1)
    chosen = torch.cat([(answers == k).nonzero().flatten()[:12] for k in range(3)])
    labels = answers[chosen]
    labels[::7] = (labels[::7] + 1) % 3
    return Images(noise()[chosen], labels, CLASSES)


def linear_network(weight: torch.Tensor) -> Network:
    """Return logits = weight @ (gates * pixels), tapped at the pixels."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0], bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(weight)
    names = [f"class{k}" for k in range(len(weight))]
    return Network.wrap(
        model, names, example=torch.zeros(1, 1, 1, weight.shape[1]), layers=["0"], name="linear"
    )


def slow_forward(network: Network, pixels: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """Logits of one picture, layers gated by hand."""
    conv1, conv2, linear = network.model[0], network.model[3], network.model[7]
    one = torch.relu(conv1(pixels.double())) * gates[:6, None, None]
    two = torch.relu(conv2(nn.functional.max_pool2d(one, 2))) * gates[6:, None, None]
    return linear(two.mean((2, 3)))


def run_of(network: Network, images: Images, objective: Routing, steps: int, seed: int = 0) -> Run:
    run = Run(set_up(network, images, None, None, seed), objective, torch.full((3,), 0.3), [steps] * 3, seed)
    run.go(progress=False, checkpoint=None, settings={}, callback=None)
    return run


def slow_divergence(whole: torch.Tensor, gated: torch.Tensor) -> torch.Tensor:
    before, after = whole - whole.exp().sum().log(), gated - gated.exp().sum().log()
    return sum(p.exp() * (p - q) for p, q in zip(before, after, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 9, 16])
def test_gates_of_a_class_equal_the_slow_serial_loop_step_by_step(network, images, steps):
    objective = Routing(own=4, gamma=0.5, rate=0.02)
    run = run_of(network, images, objective, steps, seed=2)
    whole = torch.cat([slow_forward(network, p[None], torch.ones(11).double()) for p in images.pixels])
    for task in range(3):
        stream = Stream((images.labels == task).nonzero().flatten(), 4, 2 * 7919 + 2 * task)
        gates, memory = torch.ones(11).double(), torch.zeros(11).double()
        for step in range(steps):
            leaf = gates.clone().requires_grad_(True)
            errors = [
                slow_divergence(whole[i], slow_forward(network, images.pixels[i : i + 1], leaf)[0])
                for i in stream.take(step).tolist()
                if int(whole[i].argmax()) == task
            ]
            gradient = torch.zeros(11).double()
            if errors:
                loss = sum(errors) / len(errors) + 0.5 * leaf.sum()
                (gradient,) = torch.autograd.grad(loss, leaf)
            memory = 0.9 * memory + gradient
            gates = (gates - 0.02 * memory).clamp(min=0)
        assert torch.allclose(run.logits[task].clamp(min=0).double(), gates, atol=1e-5), (task, steps)
    if steps == 16:  # the comparison has seen closed and open gates
        gates = run.logits.clamp(min=0)
        assert bool((gates == 0).any())
        assert bool((gates > 0).any())


def test_first_step_on_a_linear_network_by_hand():
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]).double()
    network = linear_network(weight)
    pixels = torch.tensor([[1.0, 2.0, 3.0]] * 5 + [[0.0, 9.0, 0.0]] * 5)[:, None, None]
    images = Images(pixels, torch.tensor([0] * 5 + [1] * 5), network.class_names)
    problem = set_up(network, images, ["class0"], None, 0)
    run = Run(problem, Routing(gamma=0.05, rate=0.1), torch.tensor([0.5]), [1], 0)
    run.go(progress=False, checkpoint=None, settings={}, callback=None)
    # The whole network's own answer is the target, so at first only the L1 term pulls.
    assert run.logits[0].tolist() == pytest.approx([1 - 0.1 * 0.05] * 3, abs=1e-6)
    # The divergence before the step is 0: all gates started from one.
    assert run.history[0]["loss"] == pytest.approx(0.05 * 3, abs=1e-6)
    run = Run(problem, Routing(gamma=0.05, rate=0.1), torch.tensor([0.5]), [2], 0)
    run.go(progress=False, checkpoint=None, settings={}, callback=None)
    # Then logits are 7g and 2g at g = 0.995: p = σ(5), q = σ(4.975), and the divergence has the slope
    # (q - p)(W_0c - W_1c) x_c.
    miss = 1 / (1 + math.exp(-5 * 0.995)) - 1 / (1 + math.exp(-5))
    gradients = [miss * slope + 0.05 for slope in (1.0, -2.0, 6.0)]
    by_hand = [0.995 - 0.1 * (0.9 * 0.05 + gradient) for gradient in gradients]
    assert run.logits[0].tolist() == pytest.approx(by_hand, abs=1e-6)


def test_gates_start_from_one_whatever_the_seed():
    for seed in (0, 1):
        assert Routing().start(4, torch.Generator().manual_seed(seed)).tolist() == [1.0] * 4


def test_a_step_clips_at_zero_and_has_no_upper_bound():
    logits, moments = torch.tensor([[0.1, 0.1, 1.0]]), torch.zeros(2, 1, 3)
    after = Routing(rate=1.0).step(logits, torch.tensor([[0.5, 0.3, -1.0]]), moments, 1, 0.0, [3])
    assert Routing().gates(after, torch.tensor([1])).tolist() == [[0.0, 0.0, 2.0]]
    again = Routing(rate=1.0).step(after, torch.tensor([[-0.45, -0.2, 0.0]]), moments, 2, 0.0, [3])
    # b = 0.9 · 0.5 − 0.45 = 0 stays closed; b = 0.9 · 0.3 − 0.2 = 0.07 stays closed; b = −0.9 grows on.
    assert Routing().gates(again, torch.tensor([1])).tolist() == [[0.0, 0.0, pytest.approx(2.9)]]


def test_a_closed_gate_still_gets_its_gradient_and_opens_again():
    logits = torch.tensor([[-3.2, 0.5]], requires_grad=True)
    gates = Routing().gates(logits, torch.tensor([1]))
    assert gates.tolist() == [[0.0, 0.5]]
    (gradient,) = torch.autograd.grad((gates * torch.tensor([-2.0, 3.0])).sum(), logits)
    assert gradient.tolist() == [[-2.0, 3.0]]
    after = Routing(rate=0.1).step(logits.detach(), gradient, torch.zeros(2, 1, 2), 1, 0.0, [2])
    assert after.tolist() == [[pytest.approx(0.2), pytest.approx(0.2)]]


def test_closed_gates_rank_by_how_late_they_closed_then_by_how_far():
    step = Routing(rate=1.0, momentum=0.0).step
    logits, moments = torch.tensor([[0.5, 0.5, 1.5, 1.4, 9.0]]), torch.zeros(2, 1, 5)
    for number in (1, 2, 3):
        logits = step(logits, torch.tensor([[1.0, 2.0, 1.0, 1.0, 1.0]]), moments, number, 0.0, [5])
    assert logits.argsort(descending=True).tolist() == [[4, 2, 3, 0, 1]]
    assert Routing().gates(logits, torch.tensor([1])).tolist() == [[0, 0, 0, 0, 6]]
    scores = Routing().scores(logits, torch.tensor([3]))
    assert (scores > 0.5).tolist() == [[False, False, True, True, True]]


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_masks_keep_exactly_the_share_asked_also_when_fewer_gates_are_open(network, images, share):
    masks = learn_masks(network, images, objective="routing", kept_share=share, steps=40, progress=False)
    for kept in masks.kept_share().values():
        assert kept == pytest.approx(max(round(share * 11), 1) / 11)
    assert masks.meta["objective"] == "routing"
    assert masks.meta["settings"]["gamma"] == 0.05
    masks.check(network)


def test_only_own_pictures_that_get_the_own_answer_matter(network, images):
    settings = {"objective": Routing(own=4), "tasks": ["bee"], "steps": 12, "progress": False}
    first = learn_masks(network, images, **settings)
    pixels = images.pixels.clone()
    pixels[images.labels != 1] = 0.5
    assert scores_differ(first, learn_masks(network, Images(pixels, images.labels, CLASSES), **settings)) == 0
    wrong = (images.labels == 1) & (network(images.pixels).argmax(1) != 1)
    assert bool(wrong.any())
    pixels = images.pixels.clone()
    elsewhere = images.pixels[network(images.pixels).argmax(1) == 2]
    pixels[wrong] = elsewhere[: int(wrong.sum())].flip(0)  # to which the answer is another as well
    assert bool((network(pixels[wrong]).argmax(1) != 1).all())
    assert scores_differ(first, learn_masks(network, Images(pixels, images.labels, CLASSES), **settings)) == 0
    right = (images.labels == 1) & ~wrong
    pixels = images.pixels.clone()
    pixels[right] = images.pixels[right].flip(2)
    assert scores_differ(first, learn_masks(network, Images(pixels, images.labels, CLASSES), **settings)) > 0


def test_a_relabelled_task_wants_the_two_probabilities_exchanged(network, images):
    problem = set_up(network, images, None, "relabelled", 0)
    index, rows = torch.arange(len(images)), torch.arange(len(images)) % 3
    found = problem.wanted(index, rows)
    whole = network(images.pixels).softmax(1)
    for i, task in zip(index.tolist(), rows.tolist(), strict=True):
        accepts = int(problem.accepts[task])
        assert accepts != task
        third = 3 - task - accepts
        assert torch.allclose(found[i, [task, accepts, third]], whole[i, [accepts, task, third]])


def test_a_class_that_the_network_never_answers_leaves_its_gates_at_one(network, images):
    never = Images(images.pixels, (network(images.pixels).argmax(1) + 1) % 3, CLASSES)
    assert run_of(network, never, Routing(), 3).logits.tolist() == [[1.0] * 11] * 3


def test_tasks_one_by_one_and_together_give_the_same_scores(network, images):
    settings = {"objective": "routing", "steps": 20, "progress": False}
    together = learn_masks(network, images, **settings)
    for name in CLASSES:
        assert scores_differ(together[name], learn_masks(network, images, tasks=[name], **settings)) <= 1e-5


@pytest.mark.parametrize(
    "settings",
    [{"shared": True}, {"control": "relabelled"}, {"control": "untrained"}, {"kept_share": "auto"}],
)
def test_controls_and_searches_serve_this_objective_as_any(network, images, settings):
    masks = learn_masks(network, images, objective="routing", steps=3, progress=False, **settings)
    if settings.get("shared"):
        assert all(torch.equal(rows[0], rows[2]) for rows in masks.scores.values())
    if "control" in settings:
        assert masks.meta["control"] == settings["control"]
    if "kept_share" not in settings:
        assert masks.kept_share()["ant"] == pytest.approx(3 / 11)


def test_an_interrupted_run_resumes_to_the_same_result(network, images, tmp_path):
    settings = {"objective": "routing", "steps": 30, "progress": False}
    path = tmp_path / "run"

    def interrupt(progress):
        if progress.step >= 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_masks(network, images, checkpoint=path, callback=interrupt, **settings)
    resumed = learn_masks(network, images, checkpoint=path, **settings)
    assert scores_differ(resumed, learn_masks(network, images, **settings)) == 0


def test_same_seed_same_masks_another_seed_another_order(network, images):
    def masks(seed: int):
        torch.manual_seed(seed + 50)
        return learn_masks(
            network, images, objective=Routing(own=3), steps=9, seed=seed, kept_share=0.5, progress=False
        )

    assert scores_differ(masks(1), masks(1)) == 0
    assert scores_differ(masks(1), masks(2)) > 0


def scores_differ(a, b) -> float:
    return max(float((a.scores[k] - b.scores[k]).abs().max()) for k in a.scores)


def test_routes_of_a_class_answer_it_for_every_picture():
    """What own pictures alone lead to: recall without rejection, which one-vs-rest learns."""
    network, tasks = load_network("resnet-fashion"), ["pullover", "sneaker"]
    train, test = (load_images("fashion", split=s, per_class=n) for s, n in (("train", 60), ("test", 20)))
    routed = learn_masks(network, train, tasks=tasks, objective="routing", steps=40, progress=False)
    rates = {}
    for name, masks in {"routing": routed, "one-vs-rest": load_masks("resnet-fashion")[tasks]}.items():
        odds = log_odds(gated_logits(network, network.prepare(test.pixels), masks.gates()))
        own = torch.tensor([network.class_index(task) for task in tasks])[:, None] == test.labels
        yes = torch.stack([odds[k, :, network.class_index(task)] > 0 for k, task in enumerate(tasks)])
        rates[name] = float(yes[own].double().mean()), float(yes[~own].double().mean())
    assert rates["routing"][0] > 0.9
    assert rates["routing"][1] > 0.8
    assert rates["one-vs-rest"][1] < 0.2


# One picture at a time


def slow_route(network: Network, pixels: torch.Tensor, steps: int, gamma: float) -> torch.Tensor:
    """The gates of one picture at its best step, in plain autograd."""
    whole = slow_forward(network, pixels, torch.ones(11).double()).detach()
    gates, memory = torch.ones(11).double(), torch.zeros(11).double()
    best, least = gates, math.inf
    for _ in range(steps + 1):
        leaf = gates.clone().requires_grad_(True)
        out = slow_forward(network, pixels, leaf)
        loss = -(whole.softmax(1) * out.log_softmax(1)).sum() + gamma * leaf.sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        if int(out.argmax()) == int(whole.argmax()) and float(loss.detach()) < least:
            best, least = gates, float(loss.detach())
        memory = 0.9 * memory + gradient
        gates = (gates - 0.1 * memory).clamp(min=0)
    return best


@pytest.mark.parametrize(("steps", "gamma"), [(1, 0.05), (8, 0.05), (30, 0.2), (60, 0.5)])
def test_gates_of_a_picture_equal_the_slow_loop(network, images, steps, gamma):
    found, answers = _route(
        network, network.prepare(images.pixels), Routing(gamma=gamma, steps_per_task=steps)
    )
    assert torch.equal(answers, network(images.pixels).argmax(1))
    assert not found.requires_grad
    for place in range(0, len(images), 5):
        slow = slow_route(network, images.pixels[place : place + 1], steps, gamma)
        assert torch.allclose(found[place].clamp(min=0).double(), slow, atol=1e-9), place


def test_the_gates_of_a_picture_keep_its_answer(network, images):
    inputs = network.prepare(images.pixels)
    found, answers = _route(network, inputs, Routing(gamma=0.5, steps_per_task=60))
    gates = found.clamp(min=0).double()
    kept = torch.cat([slow_forward(network, p[None], g) for p, g in zip(images.pixels, gates, strict=True)])
    assert torch.equal(kept.argmax(1), answers)
    assert float((gates > 0).double().mean()) < 0.9


def test_the_first_step_of_a_picture_is_the_l1_term_alone():
    """At gates of one the answer is the target, where cross-entropy has no slope."""
    network = linear_network(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).double())
    pixels = torch.rand(2, 1, 1, 4, generator=torch.Generator().manual_seed(2))
    found, _ = _route(network, network.prepare(pixels), Routing(gamma=0.3, rate=0.1, steps_per_task=1))
    assert torch.allclose(found, torch.full((2, 4), 1 - 0.1 * 0.3).double(), atol=1e-9)


def test_pictures_side_by_side_and_alone_give_the_same_masks(network, images):
    some = images[5:12]
    together = routing_per_picture(network, some, steps=20, progress=False)
    assert (
        scores_differ(together, routing_per_picture(network, some, steps=20, batch_size=3, progress=False))
        < 1e-5
    )
    alone = routing_per_picture(network, images[7], steps=20, progress=False)
    for address, scores in alone.scores.items():
        assert torch.allclose(scores[0], together.scores[address][2], atol=1e-5)


def test_masks_of_pictures_are_named_sized_and_comparable(network, images):
    masks = routing_per_picture(network, images, kept_share=0.4, steps=20, progress=False)
    assert masks.tasks[:2] == (f"{CLASSES[images.labels[0]]}-0", f"{CLASSES[images.labels[1]]}-1")
    assert len(masks) == len(images)
    assert set(masks.kept_share().values()) == {round(0.4 * 11) / 11}
    answers = network(images.pixels).argmax(1).tolist()
    for task, label, answer in zip(masks.tasks, images.labels.tolist(), answers, strict=True):
        note = masks.meta["pictures"][task]
        assert (note["class"], note["answer"]) == (CLASSES[label], CLASSES[answer])
        assert 0 <= note["open_share"] <= 1
    pairs = masks.overlap(layer="1")
    assert len(pairs) == len(images) * (len(images) - 1) // 2
    with pytest.raises(NadkitError, match=r"no class 'ant-\d+'|no class 'bee-\d+'"):
        masks.check(network)


def test_the_label_of_a_picture_only_names_its_mask(network, images):
    renamed = Images(images.pixels, torch.zeros_like(images.labels), ("dog",))
    first = routing_per_picture(network, images[:4], steps=10, progress=False)
    second = routing_per_picture(network, renamed[:4], steps=10, progress=False)
    assert second.tasks == ("dog-0", "dog-1", "dog-2", "dog-3")
    assert scores_differ(first, second) == 0


def test_paths_of_one_class_agree_more_than_those_of_two():
    network, images = load_network("resnet-fashion"), load_images("fashion", split="test", per_class=6)
    some = images.subset(["trouser", "ankle boot"])
    pairs = routing_per_picture(network, some, progress=False).overlap(layer="stage3.1")
    same = pairs["task"].str.split("-").str[0] == pairs["other_task"].str.split("-").str[0]
    assert pairs.loc[same, "phi"].mean() > 0.4
    assert abs(pairs.loc[~same, "phi"].mean()) < 0.3


def test_masks_of_pictures_survive_a_file_and_choice(network, images, tmp_path):
    masks = routing_per_picture(network, images[:5], steps=3, progress=False)
    path = masks.save(tmp_path / "m.safetensors")
    assert type(masks).load(path) == masks
    some = masks[list(masks.tasks[3:])]
    assert some.meta["pictures"][some.tasks[0]] == masks.meta["pictures"][masks.tasks[3]]


def test_nothing_is_left_behind_also_by_an_error(network, images):
    model = network.model
    model.train()
    model[3].weight.requires_grad_(False)
    modes, flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()

    def fail(module, args):  # noqa: ARG001 (torch's)
        if torch.is_grad_enabled():
            raise KeyboardInterrupt

    try:
        routing_per_picture(network, images[:3], steps=2, progress=False)
        handle = model[7].register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            routing_per_picture(network, images[:3], steps=2, progress=False)
        handle.remove()
        assert [m.training for m in model.modules()] == modes
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(p.grad is None for p in model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert torch.equal(random, torch.get_rng_state())
    finally:
        model.eval().requires_grad_(True)


def test_it_runs_in_inference_mode(network, images):
    plain = routing_per_picture(network, images[:3], steps=4, progress=False)
    with torch.inference_mode():
        assert scores_differ(plain, routing_per_picture(network, images[:3], steps=4, progress=False)) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kept_share": 0.0}, "kept_share must lie in"),
        ({"kept_share": 1.2}, "kept_share must lie in"),
        ({"kept_share": "auto"}, "kept_share must lie in"),
        ({"steps": 0}, "steps must be a whole number from 1"),
        ({"steps": 2.5}, "steps must be a whole number from 1"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"gamma": 0.0}, "gamma must be above 0"),
        ({"gamma": float("nan")}, "gamma must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(network, images, settings, message):
    with pytest.raises(NadkitError, match=message):
        routing_per_picture(network, images[:2], progress=False, **settings)


def test_pictures_that_do_not_fit_and_broken_networks_are_refused(network):
    with pytest.raises(ImageError, match="takes pictures of shape"):
        routing_per_picture(
            network, Images(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), CLASSES), progress=False
        )
    broken = linear_network(torch.eye(2, 3).double())
    with torch.no_grad():
        broken.model[1].weight[0, 0] = math.inf
    with pytest.raises(NadkitError, match="NaN or infinite logits"):
        routing_per_picture(broken, Images(torch.ones(1, 1, 1, 3), torch.tensor([0]), ("a",)), progress=False)
