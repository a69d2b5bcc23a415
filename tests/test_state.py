"""Modules with state: what they keep, precision, saving and going on, copies, reset, repr."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from protocontrast import BiCL, ClassPrototypes, PrototypeBank
from tests.stateful import STATES, batch, made, moved, warm

NARROWING: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "to float16": lambda module: module.to(torch.float16),
    "to bfloat16 on cpu": lambda module: module.to("cpu", torch.bfloat16),
    "inside a model": lambda module: nn.ModuleDict({"bank": module}).bfloat16()["bank"],
    "float": lambda module: module.float(),
    "twice": lambda module: module.half().bfloat16(),
    "widened and narrowed": lambda module: module.double().half(),
}


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name])


@pytest.mark.parametrize("text", [text for text, kept in STATES.items() if kept])
def test_what_is_kept_and_shown(text: str) -> None:
    module = made(text)
    assert {name: value.dtype for name, value in module.state_dict().items()} == STATES[text]
    assert repr(module) == text
    assert list(module.parameters()) == []
    module.requires_grad_(True)
    assert not any(buffer.requires_grad for buffer in module.buffers())


@pytest.mark.parametrize("how", NARROWING)
@pytest.mark.parametrize("text", STATES)
def test_no_conversion_narrows_a_buffer(text: str, how: str) -> None:
    module = warm(text)
    before = state(module)
    buffers = {name: value.dtype for name, value in module.named_buffers()}
    NARROWING[how](module)
    assert {name: value.dtype for name, value in module.named_buffers()} == buffers
    assert_same(state(module), before)


@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle", "torch.save", "half"])
@pytest.mark.parametrize("text", STATES)
def test_copies_go_on_alike_and_alone(text: str, how: str) -> None:
    module = warm(text, 3)
    file = io.BytesIO()
    if how == "pickle":
        twin = pickle.loads(pickle.dumps(module))
    elif how == "state_dict":
        torch.save(module.state_dict(), file)
        file.seek(0)
        twin = made(text)
        twin.load_state_dict(torch.load(file, weights_only=True))
    elif how == "torch.save":
        torch.save(module, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    else:
        twin = copy.deepcopy(module)
        twin = twin.half() if how == "half" else twin
    assert repr(twin) == repr(module)
    for seed in range(3, 6):
        before = state(module)
        results = moved(twin, seed)
        assert_same(state(module), before)
        expected = moved(module, seed)
        assert len(results) == len(expected) and all(map(torch.equal, results, expected))
        assert_same(state(twin), state(module))
        assert any(not torch.equal(value, before[name]) for name, value in state(module).items())


@pytest.mark.parametrize("text", [text for text in STATES if "BiCL" not in text])
def test_reset_forgets_everything(text: str) -> None:
    module, fresh = warm(text, 3), made(text)
    empty = state(fresh)
    assert any(not torch.equal(value, empty[name]) for name, value in state(module).items())
    module.reset()
    assert_same(state(module), empty)
    assert not any(value.any() for value in empty.values())
    moved(module, 4), moved(fresh, 4)
    assert_same(state(module), state(fresh))


@pytest.mark.parametrize(
    ("text", "main"), [(text, main) for text in STATES for main in ("prototypes", "bias")
                       if main in STATES[text]]
)  # fmt: skip
def test_double_widens_and_float_returns(text: str, main: str) -> None:
    module, reference = warm(text), warm(text)
    module.double()
    assert getattr(module, main).dtype == torch.float64
    for one in (module, reference):
        moved(one, 1)
    torch.testing.assert_close(getattr(module, main).float(), getattr(reference, main))
    module.float()
    assert getattr(module, main).dtype == torch.float32


def test_a_half_precision_model_moves_its_bank_by_small_steps() -> None:
    bank = PrototypeBank(1, 1, momentum=0.999).bfloat16()
    bank.update(torch.ones(1, 1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.long))
    for _ in range(700):
        with torch.autocast("cpu", torch.bfloat16):
            bank.update(torch.full((1, 1), 3.0).bfloat16(), torch.zeros(1, dtype=torch.long))
    assert bank.prototypes.item() == pytest.approx(3 - 2 * 0.999**700, rel=1e-5)
    narrow = torch.tensor(1.0, dtype=torch.bfloat16)
    for _ in range(700):
        narrow = 0.999 * narrow + 0.001 * 3
    assert narrow.item() == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_features_of_any_dtype_move_a_float32_bank(dtype: torch.dtype) -> None:
    features, labels = batch(0)
    bank, reference = PrototypeBank(3, 4), PrototypeBank(3, 4)
    bank.update(features.to(dtype), labels)
    reference.update(features.to(dtype).float(), labels)
    assert bank.prototypes.dtype == torch.float32
    torch.testing.assert_close(bank.prototypes, reference.prototypes)


class Group:
    """Stands for a process group: it can be neither copied nor pickled."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Group":
        raise RuntimeError("copied")

    def __reduce__(self) -> Any:
        raise RuntimeError("pickled")


def test_the_process_group_is_not_state() -> None:
    group: Any = Group()
    bank = PrototypeBank(3, 4, process_group=group)
    bicl = BiCL(3, 4, process_group=group)
    assert copy.deepcopy(bank).process_group is group
    assert copy.deepcopy(bicl).source_bank.process_group is group
    assert copy.deepcopy(nn.ModuleList([bank, bank]))[1].process_group is group
    assert pickle.loads(pickle.dumps(bank)).process_group is None
    assert pickle.loads(pickle.dumps(bicl)).target_bank.process_group is None
    assert bank.process_group is group
    assert "process_group" not in repr(bank)


def test_a_deep_copy_of_a_list_keeps_what_is_shared() -> None:
    bank = PrototypeBank(3, 4)
    pair = copy.deepcopy(nn.ModuleList([bank, bank]))
    assert pair[0] is pair[1]
    assert pair[0] is not bank


def test_a_bank_updated_in_inference_mode_serves_training() -> None:
    features, labels = batch(0)
    bank = PrototypeBank(3, 4)
    with torch.inference_mode():
        bank.update(features, labels)
    leaf = bank.prototypes.clone().requires_grad_()
    assert torch.autograd.grad(leaf.sum(), leaf)[0].eq(1).all()
    bank.update(features, labels)


def test_update_from_takes_any_pair_of_tensors() -> None:
    bank = PrototypeBank(3, 4)
    bank.update_from(ClassPrototypes(torch.ones(3, 4).half(), torch.ones(3)))
    assert bank.prototypes.eq(1).all()
