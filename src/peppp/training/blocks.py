"""Find the blocks of a module that can be recomputed in the backward pass, and recompute them.

A block is a module that a forward pass calls once, that takes and returns tensors, and that changes neither
its inputs nor its buffers when it runs again. Batch norm's statistics are an exception: the second run does
not update them.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from peppp.errors import NetworkError
from peppp.footprint.fakes import fake_arguments, fake_mode, fake_module, silent, tensors
from peppp.footprint.live import Live
from peppp.lowprec.network.recomputed import CountedAlready, repeatable
from peppp.lowprec.rounding.shape_only import is_shape_only

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_PLAIN = (Tensor, int, float, bool, str, type(None), torch.dtype, torch.device)


@dataclass(slots=True)
class Block:
    """What one forward pass showed about a module: its ``calls``, and whether it ``draws`` random numbers.

    ``against`` is the reason why it cannot be recomputed; "" if it can.
    """

    calls: int = 0
    draws: bool = False
    against: str = ""
    _before: list[tuple[Tensor, int]] = field(default_factory=list)

    @property
    def is_safe(self) -> bool:
        """Whether the block can be recomputed."""
        return not self.against


def observed(
    module: nn.Module, example_inputs: Any, dtype: torch.dtype | None, context: AbstractContextManager[Any]
) -> dict[str, Block]:
    """Run one forward pass on fake tensors and describe each module that has children or is recurrent.

    Raises NetworkError if the pass fails.
    """
    fake = fake_mode()
    network = fake_module(fake, module, dtype).train()
    args, kwargs = fake_arguments(fake, example_inputs, dtype)
    found = {name: Block() for name, part in network.named_modules() if name and _is_composite(part)}
    running: list[str] = []
    for name in found:
        _observe(network.get_submodule(name), name, found[name], running)
    try:
        with silent(), fake, Live(), _Draws(found, running), context:
            network(*args, **kwargs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise NetworkError(
            f"{type(module).__name__} cannot be rehearsed: {str(error).splitlines()[0]}"
        ) from None
    for block in found.values():
        if block.calls != 1:
            block.against = f"it is called {block.calls} times in a forward pass"
    return found


def _is_composite(module: nn.Module) -> bool:
    return next(module.children(), None) is not None or isinstance(module, nn.RNNBase)


def _observe(module: nn.Module, name: str, block: Block, running: list[str]) -> None:
    statistics = {
        id(x) for m in module.modules() if isinstance(m, _NormBase) for x in m.buffers(recurse=False)
    }
    buffers = [x for x in module.buffers() if id(x) not in statistics]

    def enter(_: Any, args: Any, kwargs: Any) -> None:
        running.append(name)
        block.calls += 1
        if not _are_plain((args, kwargs)):
            block.against = "it is given other things than tensors"
        block._before = [(x, x._version) for x in (*tensors((args, kwargs)), *buffers)]

    def leave(_: Any, __: Any, result: Any) -> None:
        running.pop()
        if any(x._version != version for x, version in block._before):
            block.against = "it writes to its input or to a buffer"
        block._before = []
        if not any(x.requires_grad for x in tensors((result,))):
            block.against = "it returns nothing that is trained"

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave)


def _are_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_are_plain, value.values()))
    if type(value) in (tuple, list):
        return all(map(_are_plain, value))
    return isinstance(value, _PLAIN)


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records which modules draw random numbers."""

    def __init__(self, found: dict[str, Block], running: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found, self._running = found, running

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if torch.Tag.nondeterministic_seeded in func.tags:
            for name in self._running:
                self._found[name].draws = True
        return func(*args, **(kwargs or {}))


def coarse_blocks(module: nn.Module, found: dict[str, Block]) -> list[str]:
    """The names of the coarsest blocks: children of containers, and modules that hold no container.

    A container is an nn.Sequential, nn.ModuleList or nn.ModuleDict that holds at least one module with
    children (or a recurrent one). A module that cannot be recomputed is replaced by the blocks within it.
    """
    blocks: list[str] = []

    def down(parent: nn.Module, path: str, *, listed: bool) -> None:
        for key, child in parent.named_children():
            name = f"{path}.{key}" if path else key
            if not _is_composite(child):
                continue
            if _is_list(child):
                down(child, name, listed=True)
            elif not listed and any(map(_is_list, child.modules())):
                down(child, name, listed=False)
            elif found[name].is_safe:
                blocks.append(name)
            else:
                down(child, name, listed=False)

    down(module, "", listed=False)
    return blocks


def finer_blocks(module: nn.Module, found: dict[str, Block], name: str) -> list[str]:
    """The names of the blocks within a block; empty if no module with children can be recomputed there."""
    inner: list[str] = []
    for key, child in module.get_submodule(name).named_children():
        path = f"{name}.{key}"
        if _is_composite(child):
            inner += [path] if path in found and found[path].is_safe else finer_blocks(module, found, path)
    return inner


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, _CONTAINERS) and any(map(_is_composite, module.children()))


def compute_again(module: nn.Module, names: Sequence[str], draws: Collection[str] = ()) -> None:
    """Make blocks recompute their forward pass in the backward pass instead of storing its results.

    ``draws`` are the names of blocks that draw random numbers. Parameter names and the class of each block do
    not change. Passes without gradients run as usual.
    """
    for name in names:
        try:
            block = module.get_submodule(name)
        except AttributeError as error:
            raise NetworkError(f"{type(module).__name__} has no block {name!r}: {error}") from None
        block.forward = Recomputed(block, draws=name in draws)


class Recomputed:
    """Replaces a block's ``forward``."""

    def __init__(self, module: nn.Module, *, draws: bool) -> None:
        self.module, self.draws = module, draws
        self._own = module.__dict__.get("forward")
        self._counts = any(isinstance(m, _NormBase) and m.track_running_stats for m in module.modules())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block's forward; if gradients are enabled, store only its inputs."""
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        is_fake = any(map(is_shape_only, tensors((args, kwargs))))

        def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return nullcontext(), _Again(counts=self._counts, draws=self.draws and is_fake)

        return checkpoint(
            repeatable(self._forward, (args, kwargs)),
            *args,
            use_reentrant=False,
            preserve_rng_state=self.draws,
            context_fn=contexts,
            **kwargs,
        )

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._own is not None:
            return self._own(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)


class _Again(AbstractContextManager[None]):
    """The context of a block's second run, in which batch norm does not update its statistics.

    On fake tensors it also allocates as much memory as torch's saved random states, which a rehearsal does
    not see otherwise.
    """

    def __init__(self, *, counts: bool, draws: bool) -> None:
        self._counts, self._draws = counts, draws
        self._kept = self._state()
        self._stacks: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        if self._counts:
            stack.enter_context(CountedAlready())
        stack.callback(lambda state: None, self._state())  # the state that torch restores
        self._stacks.append(stack)

    def __exit__(self, *error: Any) -> None:
        self._stacks.pop().close()

    def _state(self) -> Tensor | None:
        return torch.empty(torch.get_rng_state().shape, dtype=torch.uint8) if self._draws else None
