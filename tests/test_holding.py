"""A model belongs to one thread at a time, and is as before when its last block ends, in whatever order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

import nadkit as nk
from nadkit.errors import LayerError
from nadkit.networks import Network
from nadkit.taps import evaluating, frozen, help_out, this_thread

Block = Callable[[nn.Module], AbstractContextManager[None]]


def make() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Sequential(nn.Linear(3, 2)))
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


def flags(model: nn.Module) -> list[bool]:
    return [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()]


def elsewhere(function: Callable[[], object]) -> BaseException | None:
    """Run in another thread, return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def hold(block: Block, model: nn.Module) -> Generator[None]:
    with block(model):
        yield


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_blocks_may_end_in_any_order(order: tuple[int, ...]) -> None:
    model = make()
    before = flags(model)
    open_ = [hold(frozen, model), hold(evaluating, model), hold(frozen, model[2]), hold(evaluating, model[2])]
    for block in open_:
        next(block)
    for count, at in enumerate(order, 1):
        open_[at].close()
        left = set(range(4)) - set(order[:count])
        assert model[2][0].training is (not left)
        assert model[0].training is not bool(left & {0, 1})
        assert model[2][0].weight.requires_grad is not bool(left & {0, 2})
    assert flags(model) == before


@pytest.mark.parametrize("first", [frozen, evaluating])
@pytest.mark.parametrize("second", [frozen, evaluating])
@pytest.mark.parametrize(
    "part", ["the same", "a part of it", "what it is a part of", "a sibling that shares"]
)
def test_another_thread_is_refused_and_changes_nothing(first: Block, second: Block, part: str) -> None:
    model = make()
    others = {
        "the same": model, "a part of it": model[2], "what it is a part of": nn.Sequential(model),
        "a sibling that shares": nn.ModuleList([model[2], nn.ReLU()]),
    }  # fmt: skip
    before, other = flags(model), others[part]
    with first(model):
        inside = flags(model)
        error = elsewhere(lambda: second(other).__enter__())
        assert isinstance(error, LayerError)
        assert type(other).__name__ in str(error)
        assert "another thread" in str(error)
        assert flags(model) == inside
    assert flags(model) == before
    assert elsewhere(lambda: list(hold(second, other))) is None  # free again
    assert flags(model) == before


def test_another_model_is_nobody_s_business() -> None:
    with frozen(make()):
        assert elsewhere(lambda: list(hold(frozen, make()))) is None


def test_helpers_use_what_their_thread_holds() -> None:
    model = make()
    with frozen(model):
        mine = this_thread()

        def helps() -> None:
            help_out(mine)
            list(hold(evaluating, model))

        assert elsewhere(helps) is None
        assert this_thread() == threading.get_ident()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_frees_it(error: type[BaseException]) -> None:
    model = make()
    before = flags(model)
    with pytest.raises(error), evaluating(model), frozen(model):
        raise error
    assert flags(model) == before
    assert elsewhere(lambda: list(hold(frozen, model))) is None


class Told(nn.Linear):
    """It does something when its mode is asked for or set."""

    asked: Callable[[], object] = staticmethod(lambda: None)
    set_to: Callable[[bool], object] = staticmethod(lambda _: None)

    @property
    def training(self) -> bool:
        self.asked()
        return bool(self.__dict__["mode"])

    @training.setter
    def training(self, mode: bool) -> None:  # type: ignore[override]
        self.__dict__["mode"] = mode
        self.set_to(mode)


@pytest.mark.parametrize("after", range(6))
def test_a_collection_may_end_an_abandoned_block_while_another_begins_or_ends(after: int) -> None:
    model = nn.Sequential(nn.Linear(2, 2), told := Told(2, 2), nn.Linear(2, 2))
    before, asked = flags(model), iter(range(100))
    abandoned = hold(frozen, model)
    next(abandoned)

    def collect() -> None:
        if next(asked) == after and not abandoned.gi_running:
            abandoned.close()

    told.asked = collect
    with evaluating(model):
        assert not any(part.training for part in model.modules())
        ended = abandoned.gi_frame is None
        assert all(weight.requires_grad is ended for weight in model.parameters())
    del told.asked
    abandoned.close()
    assert flags(model) == before
    assert elsewhere(lambda: list(hold(frozen, model))) is None


@pytest.mark.parametrize("at", [False, True])
@pytest.mark.parametrize("block", [frozen, evaluating])
def test_an_interrupt_halfway_through_opening_or_closing_leaves_nothing(block: Block, at: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), told := Told(2, 2), nn.Linear(2, 2))
    before = flags(model)

    def interrupt(mode: bool) -> None:
        if mode is at:
            del told.set_to
            raise KeyboardInterrupt

    told.set_to = interrupt
    with pytest.raises(KeyboardInterrupt), block(model):
        pass
    assert flags(model) == before
    assert elsewhere(lambda: list(hold(block, model))) is None


def test_what_two_interrupts_left_is_given_back_by_the_next_block() -> None:
    model = nn.Sequential(nn.Linear(2, 2), told := Told(2, 2), nn.Linear(2, 2))
    before, interrupts = flags(model), iter([KeyboardInterrupt, KeyboardInterrupt])

    def interrupt(mode: bool) -> None:
        if mode and (error := next(interrupts, None)):
            told.__dict__["mode"] = False
            raise error

    told.set_to = interrupt
    with pytest.raises(KeyboardInterrupt), frozen(model):
        pass
    assert flags(model) != before
    assert elsewhere(lambda: list(hold(frozen, model))) is None
    assert flags(model) == before


class Waits(nn.Module):
    """Another thread's turn comes in the middle of its forward."""

    then: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.drop = nn.Conv2d(1, 3, 3), nn.Linear(3, 2), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        self.then()
        out: Tensor = self.head(self.drop(x.mean((2, 3))))
        return out


def test_two_threads_asking_one_network_are_told_and_no_answer_is_wrong() -> None:
    model = Waits().train()
    x = torch.rand(4, 1, 8, 8)
    network = Network.wrap(model, ["a", "b"], example=x)
    want, errors = network(x), list[BaseException | None]()

    def ask() -> None:
        model.then = lambda: None  # type: ignore[method-assign]
        network(x)

    model.then = lambda: errors.append(elsewhere(ask))  # type: ignore[method-assign]
    assert torch.equal(network(x), want)  # no dropout, as one call's end put the mode back under the other
    assert isinstance(errors[0], LayerError)
    assert all(module.training for module in model.modules())


def test_a_copy_works_beside_its_original() -> None:
    network = nk.load_network("vgg-fashion")
    copy = nk.load_network("vgg-fashion")
    pixels = torch.zeros(1, *network.input_shape)
    with frozen(network.model):
        assert elsewhere(lambda: copy(pixels)) is None
        assert isinstance(elsewhere(lambda: network(pixels)), LayerError)
