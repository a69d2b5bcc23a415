"""Modules whose numbers live in buffers that keep their precision."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WholeLoads(nn.Module):
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


class WideBuffers(WholeLoads):
    """A module without parameters whose floating buffers never lose precision.

    `.half()`, `.bfloat16()` and `.to(dtype)` leave prototypes and bias at float32 and counts at
    float64, since a bfloat16 average at momentum 0.999 never moves and float32 counts stop at 2^24;
    `.double()` widens. The process group is not state: it is shared by deep copies and left out of
    pickles.
    """

    counting: tuple[str, ...] = ()
    """Buffers that hold counts or sums and stay float64."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WideBuffers":
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            narrower = old.is_floating_point() and new is not None and new.itemsize < old.itemsize
            keeps = torch.float64 if name in self.counting else torch.float32
            if narrower and new is not None and new.dtype != keeps:
                self._buffers[name] = old.to(new.device, keeps)
        return self

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
