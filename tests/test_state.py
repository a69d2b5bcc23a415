"""Modules with state: what they keep, precision, saving and going on, copies, reset, repr."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import protocontrast as pc
from protocontrast import BiCL, ClassPrototypes, DomainBias, PrototypeBank, class_prototypes
from tests import bicl_steps

BOOL, INT, FLOAT, DOUBLE = torch.bool, torch.int64, torch.float32, torch.float64
BANK = {
    "prototypes": FLOAT, "count": DOUBLE, "present": BOOL, "skipped": INT,
    "pending_sum": DOUBLE, "pending_count": DOUBLE,
}  # fmt: skip
BIAS = {"bias": FLOAT, "present": BOOL, "count": INT}
TABLES = {
    front + name: FLOAT for front in ("", "anchor_") for name in ("weight", "mean", "variance")
}
BANK_OF_BICL = "PrototypeBank(5, 4, momentum=0.7, rule='ema', normalize=False)"
BICL = f"""BiCL(
  temperature=0.2, threshold=0.55, measure='confidence', prototypes='bank', \
bank_update='before', pairwise=False, calibrate=True, absent='mask', weights=(1.0, 1.0), \
balance='pixel', ignore_index=255, validate=False, backend='auto'
  (source_bank): {BANK_OF_BICL}
  (target_bank): {BANK_OF_BICL}
  (domain_bias): DomainBias(5, 4, momentum=0.5, warmup='zero')
)"""
# How a module shows itself, which is how it is made, and what it saves.
STATES: dict[str, dict[str, torch.dtype]] = {
    "PrototypeBank(3, 4, momentum=0.9, rule='cumulative', normalize='features')": BANK,
    "PrototypeBank(3, 4, momentum=0.9, rule='ema', normalize=False, variance=True)": {
        **BANK, "variance": FLOAT, "pending_square": DOUBLE,
    },
    "DomainBias(3, 4, momentum=0.9, warmup='copy')": BIAS,
    "ClassQueue(3, 5, 4)": {"keys": FLOAT, "count": INT, "skipped": INT},
    "ClassThresholds(3, share=0.3, cap=0.9, image_share=0.0, momentum=0.9)": {"mass": DOUBLE},
    "LogitBalance(3, 2, momentum=0.8, ramp=1500, strength=0.1, pixels=5, seed=0)": {
        **TABLES, **dict.fromkeys(("count", "latest", "step"), INT),
    },
    BICL: {
        **{f"{side}_bank.{name}": dtype for side in ("source", "target")
           for name, dtype in BANK.items()},
        **{f"domain_bias.{name}": dtype for name, dtype in BIAS.items()},
    },
    **{f"BiCL({settings})": {} for settings in ("bank_update='after'", "prototypes='batch'")},
}  # fmt: skip
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


def made(text: str) -> Any:
    if text == BICL:
        return bicl_steps.made()
    return eval(text.replace("BiCL(", "made("), {**vars(pc), "made": bicl_steps.made})


def batch(seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(30, 4, generator=random), torch.randint(0, 3, (30,), generator=random)


def moved(module: Any, seed: int) -> list[Tensor]:
    """One step of a module, and what it returns."""
    (features, labels), domain = batch(seed), ("source", "target")[seed % 2]
    if isinstance(module, BiCL):
        out, gradients = bicl_steps.run(module, seed)
        return [*out, *gradients]
    if isinstance(module, PrototypeBank):
        take = pc.class_prototypes if module.variance is None else pc.class_statistics
        module.accumulate(take(*batch(seed + 50), 3))
        return [
            *module.update_from(take(features, labels, 3)),
            *(module.commit() if seed > 3 else ()),
        ]
    if isinstance(module, DomainBias):
        means = [class_prototypes(*batch(other), 3).mean for other in (seed + 50, seed)]
        module.update(*means, torch.tensor([True, seed % 2 == 0, True]))
        return []
    if isinstance(module, pc.ClassQueue):
        module.push(features, labels, per_class=2)
        return [*module.read()]
    if isinstance(module, pc.ClassThresholds):
        module.update(features[:, :3].softmax(dim=1))
        return [module.thresholds()]
    module.update(features[:, :3], labels, domain=domain)
    return [module(features[:, :3], labels, domain=domain)]


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
    module = made(text)
    moved(module, 0)
    before = state(module)
    buffers = {name: value.dtype for name, value in module.named_buffers()}
    NARROWING[how](module)
    assert {name: value.dtype for name, value in module.named_buffers()} == buffers
    assert_same(state(module), before)


@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle", "torch.save", "half"])
@pytest.mark.parametrize("text", STATES)
def test_copies_go_on_alike_and_alone(text: str, how: str) -> None:
    module = made(text)
    for seed in range(3):
        moved(module, seed)
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
    module, fresh = made(text), made(text)
    empty = state(fresh)
    for seed in range(3):
        moved(module, seed)
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
    module, reference = made(text), made(text)
    for one in (module, reference):
        moved(one, 0)
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


def test_a_checkpoint_of_another_size_is_refused() -> None:
    bank = PrototypeBank(3, 4)
    moved(bank, 0)
    before = state(bank)
    with pytest.raises(RuntimeError, match="size mismatch for prototypes"):
        bank.load_state_dict(PrototypeBank(5, 4).state_dict())
    assert torch.equal(bank.prototypes, before["prototypes"])


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
