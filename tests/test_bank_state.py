"""`PrototypeBank` and `DomainBias` as state: precision, saving and going on, copies and pickles."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from protocontrast import BiCL, ClassPrototypes, DomainBias, PrototypeBank, class_prototypes

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
BANK_DTYPES = {
    "prototypes": torch.float32,
    "count": torch.float64,
    "present": torch.bool,
    "skipped": torch.int64,
    "pending_sum": torch.float64,
    "pending_count": torch.float64,
}
BIAS_DTYPES = {"bias": torch.float32, "present": torch.bool, "count": torch.int64}


def batch(seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(30, 4, generator=random), torch.randint(0, 3, (30,), generator=random)


def moved(module: Any, seed: int) -> None:
    """One step of either module."""
    stats = class_prototypes(*batch(seed), 3)
    if isinstance(module, PrototypeBank):
        module.update_from(stats)
        module.accumulate(class_prototypes(*batch(seed + 50), 3))
    else:
        module.update(class_prototypes(*batch(seed + 50), 3).mean, stats.mean, stats.present)


def made(kind: str) -> Any:
    if kind == "bank":
        return PrototypeBank(3, 4, momentum=0.9)
    return DomainBias(3, 4, momentum=0.9, warmup="copy")


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name])


@pytest.mark.parametrize("how", NARROWING)
@pytest.mark.parametrize(("kind", "dtypes"), [("bank", BANK_DTYPES), ("bias", BIAS_DTYPES)])
def test_no_conversion_narrows_a_buffer(
    kind: str, dtypes: dict[str, torch.dtype], how: str
) -> None:
    module = made(kind)
    moved(module, 0)
    before = state(module)
    NARROWING[how](module)
    assert {name: value.dtype for name, value in module.named_buffers()} == dtypes
    assert_same(state(module), before)


@pytest.mark.parametrize("kind", ["bank", "bias"])
def test_double_widens_and_float_returns(kind: str) -> None:
    module = made(kind)
    moved(module, 0)
    before = state(module)
    module.double()
    main = "prototypes" if kind == "bank" else "bias"
    assert getattr(module, main).dtype == torch.float64
    moved(module, 1)
    reference = made(kind)
    reference.load_state_dict(before)
    moved(reference, 1)
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


@pytest.mark.parametrize("kind", ["bank", "bias"])
def test_save_load_continue_is_continue(kind: str) -> None:
    going_on = made(kind)
    for seed in range(3):
        moved(going_on, seed)
    file = io.BytesIO()
    torch.save(going_on.state_dict(), file)
    file.seek(0)
    loaded = made(kind)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        moved(going_on, seed)
        moved(loaded, seed)
        assert_same(state(loaded), state(going_on))
    if kind == "bank":
        assert torch.equal(loaded.commit().mean, going_on.commit().mean)
        assert_same(state(loaded), state(going_on))


def test_state_dict_keys_are_the_contract() -> None:
    assert list(PrototypeBank(3, 4).state_dict()) == list(BANK_DTYPES)
    assert list(DomainBias(3, 4).state_dict()) == list(BIAS_DTYPES)


def test_a_checkpoint_of_another_size_is_refused() -> None:
    bank = PrototypeBank(3, 4)
    moved(bank, 0)
    before = state(bank)
    with pytest.raises(RuntimeError, match="size mismatch for prototypes"):
        bank.load_state_dict(PrototypeBank(5, 4).state_dict())
    assert torch.equal(bank.prototypes, before["prototypes"])


@pytest.mark.parametrize("kind", ["bank", "bias"])
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_equal_and_independent(kind: str, how: str) -> None:
    module = made(kind)
    moved(module, 0)
    if how == "deepcopy":
        twin = copy.deepcopy(module)
    elif how == "pickle":
        twin = pickle.loads(pickle.dumps(module))
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert repr(twin) == repr(module)
    before = state(module)
    assert_same(state(twin), before)
    moved(twin, 1)
    assert_same(state(module), before)
    moved(module, 1)
    assert_same(state(module), state(twin))


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


def test_repr_is_the_constructor_call() -> None:
    bank = PrototypeBank(3, 4, momentum=0.9, rule="cumulative", normalize="features")
    assert repr(bank) == (
        "PrototypeBank(3, 4, momentum=0.9, rule='cumulative', normalize='features')"
    )
    assert repr(eval(repr(bank))) == repr(bank)
    bias = DomainBias(3, 4, momentum=0.5, warmup="copy")
    assert repr(bias) == "DomainBias(3, 4, momentum=0.5, warmup='copy')"
    assert repr(eval(repr(bias))) == repr(bias)


def test_modules_hold_no_parameters_and_take_no_gradient() -> None:
    for module in (PrototypeBank(3, 4), DomainBias(3, 4), BiCL(3, 4)):
        assert list(module.parameters()) == []
        module.requires_grad_(True)
        assert not any(buffer.requires_grad for buffer in module.buffers())


def test_update_from_takes_any_pair_of_tensors() -> None:
    bank = PrototypeBank(3, 4)
    bank.update_from(ClassPrototypes(torch.ones(3, 4).half(), torch.ones(3)))
    assert bank.prototypes.eq(1).all()
