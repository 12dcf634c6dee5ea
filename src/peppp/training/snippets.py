"""Write the code that trains at a pick: plain PyTorch if possible, else with peppp's functions."""

from collections.abc import Callable, Sequence

from peppp.precisions.known import Precision, is_of_formats
from peppp.precisions.named import FP16, NamedPrecision
from peppp.records import Recipe

_KINDS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
_LOSSES = {"cross_entropy": "F.cross_entropy({}, y)", "squared_error": "F.mse_loss({}.reshape(y.shape), y)"}

_IMPORTS = ["import torch", "import torch.nn.functional as F"]
_STEP = ["optimizer.step()", "optimizer.zero_grad()"]
_PARTS = "    for x, y in zip(batch.split({0}), labels.split({0})):"
_Lines = tuple[list[str], list[str], list[str], list[str]]
_Loss = Callable[[str], str]


def snippet(
    precision: Precision,
    recipe: Recipe,
    *,
    recomputed: Sequence[str] = (),
    micro_batch: int | None = None,
    of_tokens: bool = False,
) -> str:
    """Python code that trains a network ``net`` for an epoch on the batches (x, y) of ``loader``.

    ``recomputed`` names the blocks to recompute, and ``micro_batch`` is the size of micro-batches. With
    ``of_tokens``, x holds token numbers and y the numbers of the tokens that follow them.

    >>> from peppp.formats import FP32_CONFIGURATION
    >>> print(snippet(FP32_CONFIGURATION, Recipe(optimizer_options=())))
    import torch
    import torch.nn.functional as F
    <BLANKLINE>
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001)
    for x, y in loader:
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    """
    share = "" if micro_batch is None else f" * len(x) / {recipe.batch_size}"
    template = _LOSSES.get(recipe.loss, "loss_function({}, y)")
    if of_tokens:
        template = "F.cross_entropy({}.flatten(0, 1), y.flatten())"

    def loss_of(results: str) -> str:
        return f"loss = {template.format(results)}{share}"

    if isinstance(precision, NamedPrecision) and precision.products is not None:
        head, before, inner, after = _simulated(precision, recipe, loss_of)
    elif isinstance(precision, NamedPrecision) and precision.update != "stochastic" and not recomputed:
        called = "net(x)"
        if precision.is_narrow:
            called = "net(x).float()" if of_tokens else "net(x.bfloat16()).float()"
        head, before, inner, after = _named(precision, recipe, loss_of, called)
    elif precision.is_fp32 and not recomputed:
        head, before, inner, after = _in_fp32(recipe, loss_of)
    else:
        head, before, inner, after = _prepared(precision, recipe, recomputed, loss_of)
    if begins := _begins(recipe):
        head, before = [*head, "from peppp.training.pretrained import freeze, load_into"], [*begins, *before]
    loop = ["for x, y in loader:"]
    if micro_batch is not None:
        loop = ["for batch, labels in loader:", _PARTS.format(micro_batch)]
        inner = ["    " + line for line in inner]
    return "\n".join([*head, "", *before, *loop, *("    " + line for line in (*inner, *after))])


def _in_fp32(recipe: Recipe, loss_of: _Loss) -> _Lines:
    """Lines for an fp32 training: imports, before the loop, for each part of a batch, and after the parts."""
    return _IMPORTS, [_torchs(recipe)], [loss_of("net(x)"), "loss.backward()"], _STEP


def _named(precision: NamedPrecision, recipe: Recipe, loss_of: _Loss, called: str) -> _Lines:
    head, before = list(_IMPORTS), ["net = net.bfloat16()"] if precision.is_narrow else []
    kind, options = _KINDS[recipe.optimizer], _options(recipe)
    if precision.optimizer:
        head.insert(0, "import bitsandbytes")
        before.append(f"optimizer = bitsandbytes.optim.{kind}8bit({_parameters(recipe)}, {options})")
    elif precision.update == "kahan":
        head.insert(0, "import optimi")
        before.append(f"optimizer = optimi.{kind}({_parameters(recipe)}, {options}, kahan_sum=True)")
    else:
        before.append(_torchs(recipe))
    inner = [loss_of(called)]
    if precision.casts:
        dtype = "float16" if precision.values == FP16 else "bfloat16"
        context = f"with torch.autocast(x.device.type, dtype=torch.{dtype}):"
        inner = [context, "    results = net(x)", loss_of("results.float()")]
    if not precision.scales_loss:
        return head, before, [*inner, "loss.backward()"], _STEP
    before.append("scaler = torch.amp.GradScaler(next(net.parameters()).device.type)")
    after = ["scaler.step(optimizer)", "scaler.update()", "optimizer.zero_grad()"]
    return head, before, [*inner, "scaler.scale(loss).backward()"], after


def _prepared(precision: Precision, recipe: Recipe, recomputed: Sequence[str], loss_of: _Loss) -> _Lines:
    again = f", recompute={list(recomputed)!r}" if recomputed else ""
    if is_of_formats(precision) and recipe.rounding != "stochastic":
        again += f', rounding="{recipe.rounding}"'
    before = [_torchs(recipe), f'ready = peppp.prepare(net, optimizer, "{precision}"{again})']
    inner = [loss_of("ready.forward(x)"), "ready.backward(loss)"]
    return ["import peppp", *_IMPORTS], before, inner, ["ready.step()"]


def _simulated(precision: NamedPrecision, recipe: Recipe, loss_of: _Loss) -> _Lines:
    """Lines for a precision that no library trains here: simulated in float32, without saving memory."""
    before = [
        f'net = peppp.low_precision(net, "{precision}")  # simulated in float32',
        _torchs(recipe),
        "optimizer = peppp.low_precision_optimizer(optimizer, net)",
    ]
    return ["import peppp", *_IMPORTS], before, [loss_of("net(x)"), "loss.backward()"], _STEP


def _torchs(recipe: Recipe) -> str:
    return f"optimizer = torch.optim.{_KINDS[recipe.optimizer]}({_parameters(recipe)}, {_options(recipe)})"


def _begins(recipe: Recipe) -> list[str]:
    """Lines that load pretrained weights and freeze parameters."""
    loaded = [f"load_into(net, {recipe.pretrained.rpartition('#')[0]!r})"] if recipe.pretrained else []
    return [*loaded, *([f"freeze(net, {list(recipe.freeze)!r})"] if recipe.freeze else [])]


def _parameters(recipe: Recipe) -> str:
    return "[p for p in net.parameters() if p.requires_grad]" if recipe.freeze else "net.parameters()"


def _options(recipe: Recipe) -> str:
    others = (f"{name}={value:g}" for name, value in recipe.optimizer_options)
    return ", ".join([f"lr={recipe.learning_rate:g}", *others])
