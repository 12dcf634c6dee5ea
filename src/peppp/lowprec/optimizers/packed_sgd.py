"""SGD whose accumulator, momentum and weights are packed: it steps segment by segment.

Little of a parameter is unpacked at a time, while other optimizers unpack a whole parameter.
"""

from typing import Any

import torch
from torch import Tensor

from peppp.lowprec.optimizers.packed import ACCUMULATOR, PackedOptimizer
from peppp.lowprec.optimizers.simulated import LowPrecisionSGD, sgd_step
from peppp.lowprec.packing.packed_tensor import PackedTensor
from peppp.lowprec.rounding import backend, kernels
from peppp.lowprec.rounding.shape_only import is_shape_only
from peppp.lowprec.rounding.streams import WEIGHT, mix
from peppp.lowprec.storage.weights import flat_rows, rows

_MOMENTUM = "momentum_buffer"


class PackedSGD(PackedOptimizer, LowPrecisionSGD):
    """SGD over packed parameters, one segment at a time."""

    def _step_packed(self, parameter: Tensor, gradient: Tensor, update_key: int) -> None:
        weights = self.storage.weights
        if parameter in weights.spoiled:
            return
        if not (kernels.available() and gradient.is_cpu) and not is_shape_only(gradient):
            super()._step_packed(parameter, gradient, update_key)
            return
        group = next(g for g in self.param_groups if any(p is parameter for p in g["params"]))
        packed = self.packed[parameter]
        accumulator = packed.get(ACCUMULATOR)
        if group["momentum"] and _MOMENTUM not in packed:
            like = accumulator or weights.packed[parameter]
            fmt = self.format
            packed[_MOMENTUM] = PackedTensor.empty(
                like.shape, like.stride, fmt, like.segment, gradient.device
            )
            packed[_MOMENTUM].words.zero_()  # the code of 0 is 0
        momentum = packed[_MOMENTUM] if group["momentum"] else None
        weight = None if self.recompute else weights.packed.get(parameter)
        exact = self._stream(parameter, gradient, accumulator, momentum, weight, group, update_key)
        if not exact:
            weights.spoiled.add(parameter)
        if accumulator is not None:
            self._set_key(parameter, mix(mix(update_key, self.numbers[parameter]), WEIGHT))

    def _stream(
        self,
        parameter: Tensor,
        gradient: Tensor,
        accumulator: PackedTensor | None,
        momentum: PackedTensor | None,
        weight: PackedTensor | None,
        group: dict[str, Any],
        update_key: int,
    ) -> bool:
        """Unpack, step and pack, segment by segment; return whether all numbers had a code."""
        number, p = self.numbers[parameter], self.roundings
        rates = (group["lr"], group["momentum"], group["weight_decay"])
        packed = [t for t in (momentum, accumulator, weight) if t is not None]
        first = accumulator or packed[-1]
        gradients = flat_rows(gradient, first)
        exact = True
        segments = first.segments()
        for segment, start, stop in segments[:2] if is_shape_only(gradient) else segments:
            unpacked = {id(t): torch.empty(stop - start, device=gradient.device) for t in packed}
            for t in packed:
                if t is not weight or accumulator is None:
                    t.read(segment, unpacked[id(t)])
            v, acc, w = (
                None if t is None else rows(unpacked[id(t)], first) for t in (momentum, accumulator, weight)
            )
            g = rows(gradients[start:stop], first)
            w = torch.empty_like(g) if w is None else w
            if not backend.sgd_step(
                [g], None if v is None else [v], None if acc is None else [acc], [w], [number],
                p, *rates, update_key, start,
            ):  # fmt: skip
                sgd_step(g, v, acc, w, p, *rates, mix(update_key, number))
            for t in packed:
                exact &= t.write(segment, unpacked[id(t)])
        return exact
