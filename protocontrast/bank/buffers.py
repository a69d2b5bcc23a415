"""Modules whose numbers live in buffers that keep their precision."""

import copy
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from protocontrast.functional.precision import has_float64, widest_dtype
from protocontrast.module import Configured, Module


def new_counts() -> torch.dtype:
    """Of counts that are made on the default device."""
    return widest_dtype(torch.get_default_device())


class WholeLoads(Module):
    """A module whose buffers, and its children's, are all loaded or, where refused, all kept."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in torch, but that a refused state leaves every buffer as it was."""
        owned = [
            (module._buffers, name, buffer, buffer.clone())
            for module in self.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except Exception:
            with torch.no_grad():
                for buffers, name, buffer, before in owned:
                    buffers[name] = buffer.copy_(before)
            raise


class WideBuffers(Configured, WholeLoads):
    """A module without parameters whose floating buffers never lose precision.

    `.half()`, `.bfloat16()` and `.to(dtype)` leave prototypes and bias at float32 and counts at
    float64, since a bfloat16 average at momentum 0.999 never moves and float32 counts stop at 2^24;
    `.double()` widens. On a device without float64 counts are float32 while they lie there, and
    float64 again once they have left it. The process group is not state: it is shared by deep
    copies and left out of pickles.
    """

    counting: tuple[str, ...] = ()
    """Buffers that hold counts or sums and stay float64 where there is such a type."""

    process_group: "dist.ProcessGroup | None" = None

    def extra_repr(self) -> str:
        """The constructor's arguments, but for those that are kept as buffers, and the ranks."""
        given = signature(type(self)).parameters.values()
        found = []
        for one in given:
            if one.name in (*self._buffers, "process_group"):
                continue
            value = getattr(self, one.name)
            # A number of numpy is shown as a number.
            shown = repr(value) if isinstance(value, str) else str(value)
            found.append(f"{one.name}={shown}" if one.kind is one.KEYWORD_ONLY else shown)
        return ", ".join(found)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything."""
        for buffer in self.buffers(recurse=False):
            buffer.zero_()

    def over_ranks(self, value: Tensor) -> Tensor:
        """The sum over the ranks that share the module, in place."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(value, group=self.process_group)
        return value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WideBuffers":
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        if not all(map(has_float64, self._destinations(fn))):
            before = {
                name: old.float() if old.dtype == torch.float64 else old
                for name, old in before.items()
            }
            self._buffers.update(before)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if new is None or not old.is_floating_point():
                continue
            counts = name in self.counting
            keeps = widest_dtype(new.device) if counts else torch.float32
            if new.dtype != keeps and (counts or new.itemsize < old.itemsize):
                self._buffers[name] = old.to(new.device, keeps)
        return self

    def _destinations(self, fn: Callable[[Tensor], Tensor]) -> set[torch.device]:
        """Where `fn` takes buffers to."""
        homes = {one.device for one in self._buffers.values() if one is not None}
        return {fn(torch.zeros((), dtype=torch.float32, device=home)).device for home in homes}

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if "process_group" in state:
            state["process_group"] = None
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> "WideBuffers":
        group = getattr(self, "process_group", None)
        if group is not None:
            memo[id(group)] = group
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return clone
