"""Training loops of other packages, for benchmarks/zoo.py, each beside the same loop written by hand."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from zoo_case import load
from zoo_judge import CONFIGURATION, Failure, State, attempt, differing

import peppp

UPDATES, BATCH, ACCUMULATED, CLIP = 4, 4, 2, 1.0


@dataclass(frozen=True)
class Way:
    """How a loop trains."""

    storage: str = "simulated"
    gradients: str | None = None
    accumulated: int = 1
    clipped: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loop:
    """A loop: its package, how it trains, and a function that returns the state of the trained network.

    ``expected`` is how the loop by hand trains, where that is another way.
    """

    package: str
    train: Callable[[Way], State]
    way: Way = Way()


def looped(loop: Loop) -> dict[str, Any]:
    """Whether a loop trains as the loop by hand does, in both storages."""
    wrong, refused = [], []
    for storage in ("simulated", "packed"):
        way = Way(storage, loop.way.gradients, loop.way.accumulated, loop.way.clipped, loop.way.settings)
        found = attempt(partial(loop.train, way))
        if isinstance(found, Failure):
            (refused if found.ours else wrong).append(f"{storage}: {found.line}")
            continue
        expected = by_hand(way)
        names = differing(expected, found)
        if names:
            wrong.append(f"{storage}: {len(names)} of {len(expected)} tensors differ, first {names[0]}")
    if wrong:
        return {"verdict": "wrong", "wrong": wrong}
    if refused:
        return {"verdict": "refused in one line", "line": "; ".join(refused)}
    return {"verdict": "right"}


class Bert(nn.Module):
    """A tiny BERT that returns its loss, as Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        library = load("transformers")
        config = library.BertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=32,
            max_position_embeddings=16,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.inner = library.BertForSequenceClassification(config)
        self.config = config

    def gradient_checkpointing_enable(self, **more: Any) -> None:
        """Trainer's switch."""
        self.inner.gradient_checkpointing_enable(**more)

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Words and classes to the loss."""
        logits = self.inner(input_ids).logits
        return {"loss": 16 * cross_entropy(logits, labels), "logits": logits}  # so that clipping matters


def sentences() -> Iterator[dict[str, Tensor]]:
    """Sentences one by one, as a data loader collects them."""
    torch.manual_seed(5)
    for _ in range(64):
        yield {"input_ids": torch.randint(0, 32, (8,)), "labels": torch.randint(0, 2, ())}


def made(way: Way) -> tuple[nn.Module, Any]:
    """The converted network and its optimizer."""
    torch.manual_seed(0)
    net = peppp.low_precision(Bert().train(), CONFIGURATION, seed=3)
    base = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    more = {} if way.gradients is None or way.storage == "simulated" else {"gradients": way.gradients}
    return net, peppp.low_precision_optimizer(base, net, storage=way.storage, **more)


def state(net: nn.Module) -> State:
    """Copies of weights and buffers."""
    return {name: x.clone() for name, x in net.state_dict().items() if isinstance(x, Tensor)}


def by_hand(way: Way) -> State:
    """The loop that the others must equal."""
    net, optimizer = made(way)
    given = _loaded()
    for _ in range(UPDATES):
        optimizer.zero_grad()
        for _ in range(way.accumulated):
            loss = net(**next(given))["loss"] / way.accumulated
            loss.backward()
        if way.clipped:
            torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
    return state(net)


class _Sentences(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    def __init__(self, first: int = 0) -> None:
        self.first = first

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return islice(sentences(), self.first, None)


def _loader(first: int = 0) -> Any:
    return torch.utils.data.DataLoader(_Sentences(first * BATCH), batch_size=BATCH)


def _loaded() -> Iterator[dict[str, Tensor]]:
    return iter(_loader())


def trainer(way: Way, *, resumed: bool = False) -> State:
    """transformers.Trainer, with its clipping; ``resumed`` goes on from what it saved half way."""
    library = load("transformers")
    with tempfile.TemporaryDirectory() as folder:

        def run(updates: int, again: bool) -> nn.Module:
            net, optimizer = made(way)
            settings = library.TrainingArguments(
                output_dir=folder,
                max_steps=updates,
                per_device_train_batch_size=BATCH,
                gradient_accumulation_steps=way.accumulated,
                save_strategy="steps" if resumed else "no",
                save_steps=UPDATES // 2,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                lr_scheduler_type="constant",
                logging_strategy="no",
                **way.settings,
            )
            constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
            loop = library.Trainer(
                model=net, args=settings, train_dataset=_Sentences(), optimizers=(optimizer, constant)
            )
            loop.train(resume_from_checkpoint=again or None)
            return net

        if resumed:
            run(UPDATES // 2, False)
        return state(run(UPDATES, resumed))


def accelerated(way: Way) -> State:
    """A loop with accelerate's Accelerator, that accumulates and clips."""
    library = load("accelerate")
    net, optimizer = made(way)
    library.state.AcceleratorState._reset_state(reset_partial_state=True)  # one for the process otherwise
    accelerator = library.Accelerator(cpu=True, gradient_accumulation_steps=way.accumulated, **way.settings)
    prepared, prepared_optimizer, loader = accelerator.prepare(net, optimizer, _loader())
    done = 0
    for batch in loader:
        with accelerator.accumulate(prepared):
            accelerator.backward(prepared(**batch)["loss"])
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(prepared.parameters(), CLIP)
            prepared_optimizer.step()
            prepared_optimizer.zero_grad()
        done += accelerator.sync_gradients
        if done == UPDATES:
            break
    return state(net)


def lightning_fit(way: Way, *, resumed: bool = False) -> State:
    """Lightning's Trainer.fit; ``resumed`` goes on from what it saved half way."""
    library = load("lightning")
    net, optimizer = made(way)

    class Wrapped(library.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, net: nn.Module, optimizer: Any) -> None:
            super().__init__()
            self.net, self.chosen = net, optimizer

        def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
            loss: Tensor = self.net(**batch)["loss"]
            return loss

        def configure_optimizers(self) -> Any:
            return self.chosen

    def fit(net: nn.Module, optimizer: Any, updates: int, kept: str | None = None) -> Any:
        loop = library.Trainer(
            max_steps=updates,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accumulate_grad_batches=way.accumulated,
            gradient_clip_val=CLIP if way.clipped else None,
            **way.settings,
        )
        first = 0 if kept is None else UPDATES // 2  # it does not skip the batches that it had
        loop.fit(Wrapped(net, optimizer), _loader(first), ckpt_path=kept)
        return loop

    if not resumed:
        fit(net, optimizer, UPDATES)
        return state(net)
    with tempfile.TemporaryDirectory() as folder:
        fit(net, optimizer, UPDATES // 2).save_checkpoint(f"{folder}/half.ckpt")
        net, optimizer = made(way)
        fit(net, optimizer, UPDATES, f"{folder}/half.ckpt")
    return state(net)


_ACCUMULATING = Way(accumulated=ACCUMULATED)
LOOPS = {
    "trainer": Loop("transformers", trainer),
    "trainer, accumulation": Loop("transformers", trainer, _ACCUMULATING),
    "trainer, gradient_checkpointing": Loop(
        "transformers", trainer, Way(settings={"gradient_checkpointing": True})
    ),
    "trainer, saved and resumed": Loop("transformers", partial(trainer, resumed=True)),
    "trainer, bf16": Loop("transformers", trainer, Way(settings={"bf16": True})),
    "trainer, steps in the backward pass": Loop("transformers", trainer, Way(gradients="in_backward")),
    "accelerate": Loop("accelerate", accelerated, _ACCUMULATING),
    "accelerate, bf16": Loop("accelerate", accelerated, Way(settings={"mixed_precision": "bf16"})),
    "lightning": Loop("lightning", lightning_fit, _ACCUMULATING),
    "lightning, saved and resumed": Loop("lightning", partial(lightning_fit, resumed=True)),
    "lightning, bf16": Loop("lightning", lightning_fit, Way(settings={"precision": "bf16-mixed"})),
}
