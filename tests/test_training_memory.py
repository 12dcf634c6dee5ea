"""The rehearsed step against torch's own allocator, for trainings in plain PyTorch."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers import answer, peppp, refused
from peppp import training_memory
from peppp.errors import NetworkError
from peppp.footprint.fakes import classification_loss
from peppp.footprint.measuring import measure_training

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from rehearsals import NETWORKS

CASES = [
    (name, precision, optimizer)
    for name in NETWORKS
    for precision, optimizer in (
        ("fp32", "sgd"), ("fp32", "adafactor"), ("amp-bf16", "sgd"), ("amp-fp16", "sgd"), ("bf16", "adamw"),
    )
]  # fmt: skip


@pytest.fixture(params=[1, 2])
def threads(request):
    """Threads of torch: kernels allocate more of their own with more of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "precision", "optimizer"), CASES)
def test_a_rehearsed_step_is_what_the_allocator_says(name, precision, optimizer, threads):
    network, inputs = NETWORKS[name]
    try:
        real = measure_training(network(), inputs(), optimizer=optimizer, precision=precision)
    except NetworkError:  # oneDNN has no LSTM in bf16 on processors without AVX-512, nor in fp16 on most
        with pytest.raises(NetworkError, match=r"an LSTM in b?float16 does not run on this processor"):
            training_memory(network(), inputs(), optimizer=optimizer, precision=precision)
        return
    found = training_memory(network(), inputs(), optimizer=optimizer, precision=precision)
    assert found.at_rest == pytest.approx(real.at_rest, rel=1e-3)
    assert found.kept == pytest.approx(real.kept, rel=1e-2)
    assert found.peak == pytest.approx(real.peak, rel=0.03)


@pytest.mark.parametrize("count", [3, 12, 40, 100])
def test_few_images_tell_what_kernels_allocate_for_many(count, threads):
    network = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1, groups=24), nn.BatchNorm2d(48),
        nn.ConvTranspose2d(48, 16, 2, 2), nn.Flatten(), nn.Linear(16 * 24 * 24, 10),
    )  # fmt: skip
    images = torch.zeros(count, 3, 24, 24)
    for x in (images, images.contiguous(memory_format=torch.channels_last)):
        real = measure_training(network, x)
        assert training_memory(network, x).peak == pytest.approx(real.peak, rel=0.01)


def test_a_depthwise_weight_is_counted_in_the_blocks_that_kernels_lay_it_out_in():
    network = nn.Sequential(nn.Conv2d(1024, 512, 1), nn.Conv2d(512, 512, 7, padding=3, groups=512))
    for images in (
        torch.zeros(2, 1024, 2, 2),
        torch.zeros(2, 1024, 2, 2).to(memory_format=torch.channels_last),
    ):
        real = measure_training(network, images)
        assert training_memory(network, images).peak == pytest.approx(real.peak, rel=0.01)


def test_norms_lay_out_their_results_as_torch_s_kernels_do():
    seen = []

    class Noted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.batch = nn.LayerNorm(6), nn.BatchNorm2d(6)

        def forward(self, x):
            x = x + self.layer.weight[0]
            normed = self.layer(x.permute(0, 2, 3, 1))
            batched = self.batch(normed.permute(0, 3, 1, 2).contiguous())
            for made in (x, normed, batched):
                made.register_hook(lambda grad: seen.append(grad.stride()))
            seen.extend((normed.stride(), batched.stride()))
            return batched.contiguous(memory_format=torch.channels_last)

    training_memory(Noted(), torch.zeros(2, 6, 5, 4))
    estimated = seen.copy()
    seen.clear()
    measure_training(Noted(), torch.zeros(2, 6, 5, 4))
    assert estimated == seen


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 8, 5, 4),
        torch.zeros(2, 8, 5, 4).contiguous(memory_format=torch.channels_last),
        torch.zeros(2, 16, 5, 4).contiguous(memory_format=torch.channels_last)[:, :8],
        torch.zeros(2, 1, 5, 4).expand(2, 8, 5, 4),
        torch.zeros(2, 8, 5, 4, 3).contiguous(memory_format=torch.channels_last_3d),
        torch.zeros(2, 5, 8).transpose(1, 2),
    ],
    ids=["dense", "channels_last", "part", "expanded", "channels_last_3d", "sequence"],
)
def test_a_group_norm_lays_out_its_results_as_torch_s_kernels_do(images):
    seen = []

    class Noted(nn.Module):
        def __init__(self):
            super().__init__()
            self.group = nn.GroupNorm(4, 8)

        def forward(self, x):
            x = x.detach().requires_grad_()
            normed = self.group(x)
            for made in (x, normed):
                made.register_hook(lambda grad: seen.append(grad.stride()))
            seen.append(normed.stride())
            return normed.flatten(1)

    training_memory(Noted(), images)
    estimated = seen.copy()
    seen.clear()
    measure_training(Noted(), images)
    assert estimated == seen


class Gathered(nn.Module):
    """Some rows of a table, whose gradients are scattered into zeros."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4000, 8))

    def forward(self, rows):
        return self.table.index_select(0, rows).square()


class Masked(Gathered):
    """A table, some of whose numbers are left out."""

    def forward(self, mask):
        return self.table * mask


@pytest.mark.parametrize(
    ("module", "given"), [(Gathered, torch.arange(9)), (Masked, torch.ones(4000, 8, dtype=torch.bool))]
)
def test_gradients_are_scattered_in_place_and_masks_are_cast(module, given):
    real = measure_training(module(), given)
    assert training_memory(module(), given).peak == pytest.approx(real.peak, rel=0.01)


class Dropping(nn.Module):
    """A layer that is left out at random."""

    def __init__(self, share):
        super().__init__()
        self.first, self.second, self.share = nn.Linear(50, 50), nn.Linear(50, 50), share

    def forward(self, x):
        x = self.first(x)
        return x if torch.rand([]) < self.share else self.second(x)


def test_a_layer_that_is_dropped_at_random_is_counted():
    real = measure_training(Dropping(0.0), torch.zeros(4, 50))
    found = training_memory(Dropping(0.1), torch.zeros(4, 50))
    assert (found.kept, found.peak) == pytest.approx((real.kept, real.peak), rel=0.01)


def test_a_scaler_of_losses_does_not_leave_the_step_out():
    found = training_memory(nn.Linear(100, 10), torch.zeros(4, 100), precision="amp-fp16", optimizer="adam")
    assert found.states == 2 * found.weights + 2 * 4  # two moments, and the count of steps of two parameters


def test_parts_are_those_of_the_module_which_is_left_as_it_is():
    network = NETWORKS["resnet8"][0]()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = training_memory(network, (NETWORKS["resnet8"][1](),), optimizer="adamw")
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert (found.weights, found.gradients) == (weights, weights)
    counts = 4 * len(list(network.parameters()))  # of steps
    assert found.states == 2 * weights + counts
    assert found.inputs == 8 * 3 * 32 * 32 * 4
    assert found.kept == found.at_rest + found.activations
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert network.training


def test_nothing_is_allocated():
    with torch.device("meta"):
        huge = nn.Sequential(nn.Linear(200_000, 200_000), nn.ReLU(), nn.Linear(200_000, 10))
    found = training_memory(huge, torch.empty(4, 200_000, device="meta"), optimizer="adam")
    assert found.weights > 160e9
    assert found.peak > 4 * found.weights


def test_keywords_losses_and_optimizers_of_ones_own():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(100, 32), nn.Linear(32, 100)

        def forward(self, tokens, scale=1.0):
            return {"logits": self.out(self.embed(tokens)) * scale}

    def loss(output):
        return functional.cross_entropy(output["logits"].flatten(0, 1), torch.zeros(32, dtype=torch.int64))

    tokens = torch.zeros(4, 8, dtype=torch.int64)
    plain = training_memory(
        Language(), {"tokens": tokens, "scale": 2.0}, loss=loss, optimizer=torch.optim.SGD
    )
    assert plain.states == 0
    assert training_memory(Language(), [tokens], loss=loss).states == plain.weights


class NeedsData(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x[x > 0])


@pytest.mark.parametrize(
    ("module", "how", "said"),
    [
        (NeedsData(), {}, "NeedsData cannot be rehearsed without data: "),
        (nn.Linear(5, 4), {}, "Linear cannot be rehearsed without data: "),
        (nn.Linear(4, 4).requires_grad_(False), {}, "no parameter of Linear is trained"),
        (
            nn.Linear(4, 4),
            {"precision": "int4"},
            "unknown precision 'int4'; known: fp32, amp-bf16, amp-fp16, bf16, bf16-sr, bf16-kahan, fp8, ",
        ),
        (
            nn.Linear(4, 4),
            {"optimizer": "lion"},
            "unknown optimizer 'lion'; known: sgd, adam, adamw, adafactor",
        ),
    ],
)
def test_what_cannot_be_rehearsed_is_said_in_one_line(module, how, said):
    with pytest.raises(NetworkError, match=said) as raised:
        training_memory(module, torch.zeros(2, 4), **how)
    assert "\n" not in str(raised.value)


def test_the_command_says_what_plain_pytorch_takes_and_whether_it_fits():
    line = ("memory", "resnet8", "--input", "3x16x16", "--batch", "16", "--precision")
    found = answer(*line, "amp-bf16", "--optimizer", "adamw", "--budget", "1GB")
    assert found["fits"] is True
    assert found["left"] == 10**9 - found["peak"]
    text = " ".join(peppp(*line, "fp32", "--budget", "1MB").stdout.split())
    assert "estimated, CPU kernels" in text
    assert "does not fit in 1.00 MB" in text
    assert "no batch fits" in text


def test_the_command_names_the_largest_batch_that_fits_and_measures_real_steps():
    line = ("memory", "resnet8", "--input", "3x16x16", "--precision", "fp32", "--budget", "20MB")
    found = answer(*line, "--batch", "16")
    most = found["largest_batch"]
    at = [answer(*line, "--batch", str(batch))["peak"] for batch in (most, most + 1)]
    assert at[0] <= 20_000_000 < at[1]
    real = answer(*line, "--batch", "16", "--measure")
    assert (found["source"], real["source"]) == ("estimated", "measured")
    assert real["kept"] == pytest.approx(found["kept"], rel=0.01)
    assert real["peak"] == pytest.approx(found["peak"], rel=0.03)
    for option in (["--measure"], ["--device", "cuda"], ["--accumulate", "2"]):
        assert "name its --precision" in refused("memory", "resnet8", *option)
    for option in (["--inference"], ["--storage", "packed"], ["--configurations", "fp32"]):
        said = refused("memory", "resnet8", "--precision", "fp32", *option)
        assert f"{option[0]} says nothing of plain PyTorch" in said


def test_a_step_that_needs_data_is_measured():
    assert measure_training(NeedsData(), torch.ones(4)).peak > 0


def weights_and_states(precision, optimizer=None, **how):
    network = nn.Sequential(nn.Linear(100, 200), nn.Linear(200, 10))  # 20,000 and 2,000 weights, 210 biases
    found = training_memory(network, torch.empty(4, 100), precision=precision, optimizer=optimizer, **how)
    return found.weights, found.states


@pytest.mark.parametrize(
    ("precision", "optimizer", "weight", "states"),
    [
        # of 20,000 numbers: a byte (or half of one) each, and 4 for each 256 (128); the others in float32
        ("fp32-sgd8bit", None, 4, 20_000 + 4 * 79 + 4 * 2210),
        ("amp-bf16-adamw8bit", None, 4, 2 * (20_000 + 4 * 79 + 4 * 2210)),
        ("bf16-adamw4bit", None, 2, 2 * (10_000 + 4 * 157 + 4 * 2210)),
        ("bf16-sr-sgd8bit", "sgd", 2, 20_000 + 4 * 79 + 4 * 2210),
        ("bf16-kahan", "sgd", 2, 2 * 2 * 22_210),
        ("bf16-kahan", "adamw", 2, 3 * 2 * 22_210),
        ("bf16-sr", "adam", 2, 2 * 2 * 22_210),
    ],
)
def test_states_by_rule(precision, optimizer, weight, states):
    assert weights_and_states(precision, optimizer) == (weight * 22_210, states)


@pytest.mark.parametrize(
    ("precision", "optimizer", "said"),
    [
        ("fp32-adamw8bit", "sgd", "-adamw8bit names the optimizer; leave 'sgd' out"),
        ("bf16-kahan-sgd8bit", None, "no optimizer has both Kahan summation and sgd8bit states"),
        ("bf16-sr", "adafactor", "adafactor has no form with bf16-sr; take sgd, adam or adamw"),
        ("bf16-kahan", torch.optim.SGD, "bf16-kahan needs an optimizer of its own"),
    ],
)
def test_what_does_not_go_together_is_said(precision, optimizer, said):
    with pytest.raises(NetworkError, match=said):
        weights_and_states(precision, optimizer)
    with pytest.raises(NetworkError, match="is counted, and not run"):
        measure_training(nn.Linear(4, 4), torch.zeros(2, 4), precision="bf16-sr")


@pytest.mark.parametrize("name", ["SGD8bit", "AdamW8bit"])
def test_bitsandbytes_steps_on_fakes_and_keeps_what_the_rule_says(name):
    optim = pytest.importorskip("bitsandbytes", exc_type=ImportError).optim
    make = getattr(optim, name)
    options = {"momentum": 0.9} if name == "SGD8bit" else {}
    network, x = nn.Sequential(nn.Linear(100, 200), nn.Linear(200, 10)), torch.zeros(4, 100)
    real = measure_training(network, x, optimizer=lambda p: make(p, lr=0.01, **options))
    by_rule = training_memory(network, x, precision=f"fp32-{name.lower()}")
    books = real.at_rest - by_rule.at_rest  # its tables of 256 codes, shared by all states
    assert 0 <= books <= 2 * 1024 + 64
    stepped = training_memory(network, x, optimizer=lambda p: make(p, lr=0.01, **options))
    assert stepped.at_rest == pytest.approx(real.at_rest, abs=64)
    assert stepped.states == by_rule.states + 1024 * (1 if name == "SGD8bit" else 2)
    assert by_rule.kept == pytest.approx(real.kept - books, rel=0.01)


def test_kahan_summation_of_torch_optimi():
    optimi = pytest.importorskip("optimi")
    network, x = nn.Sequential(nn.Linear(100, 200), nn.Linear(200, 10)), torch.zeros(4, 100)
    real = measure_training(network, x, precision="bf16", optimizer=lambda p: optimi.AdamW(p, lr=1e-3))
    by_rule = training_memory(network, x, precision="bf16-kahan", optimizer="adamw")
    assert by_rule.at_rest == pytest.approx(real.at_rest, abs=64)
    assert by_rule.kept == pytest.approx(real.kept, rel=0.01)


@pytest.mark.parametrize("how", [{"accumulate": 3}, {"release_gradients": True}])
def test_gradients_that_are_added_up_or_released(how):
    network = nn.Sequential(*(nn.Linear(300, 300) for _ in range(4)))
    x, sgd = torch.zeros(64, 300), lambda p: torch.optim.SGD(p, lr=0.1)
    found, plain = (
        training_memory(network, x, optimizer=sgd, **how),
        training_memory(network, x, optimizer=sgd),
    )
    real = measure_training(network, x, optimizer=sgd, **how)
    assert found.peak == pytest.approx(real.peak, rel=0.03)
    assert found.kept == pytest.approx(real.kept, rel=0.01)
    assert found.gradients == plain.gradients
    assert (found.peak > plain.peak) is ("accumulate" in how)
    with pytest.raises(NetworkError, match="gradients that are added up cannot be released"):
        training_memory(network, x, accumulate=2, release_gradients=True)


def test_parts_of_low_rank_beside_frozen_weights():
    class LowRank(nn.Module):
        def __init__(self):
            super().__init__()
            self.full = nn.Linear(400, 400).requires_grad_(False)
            self.down, self.up = nn.Linear(400, 4, bias=False), nn.Linear(4, 400, bias=False)

        def forward(self, x):
            return self.full(x) + self.up(self.down(x))

    network, x = nn.Sequential(LowRank(), nn.ReLU(), LowRank()), torch.zeros(32, 400)
    found = training_memory(network, x, optimizer="adamw")
    real = measure_training(network, x, optimizer="adamw")
    assert found.gradients == 4 * 2 * 2 * 1600
    assert found.states == 2 * found.gradients + 4 * 4  # and a count of steps each
    assert found.kept == pytest.approx(real.kept, rel=1e-3)
    assert found.peak == pytest.approx(real.peak, rel=0.03)


def test_a_gpu_by_rule_fuses_attention_with_dropout_and_has_a_reserve():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(32, 96)

        def forward(self, x):
            q, k, v = self.qkv(x).view(4, 512, 3, 2, 16).permute(2, 0, 3, 1, 4)
            return functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1)

    x = torch.empty(4, 512, 32)
    cpu, cuda = (training_memory(Attends(), x, device=device) for device in ("cpu", "cuda"))
    matrix = 4 * 2 * 512 * 512 * 4
    assert cpu.activations > matrix > cuda.activations
    assert (cpu.reserve, cuda.reserve) == (0, 600_000_000 + round(cuda.peak / 10))
    assert "by rule, not run" in str(cuda)
    with pytest.raises(NetworkError, match="unknown device 'tpu'; known: cpu, cuda"):
        training_memory(nn.Linear(2, 2), torch.empty(2, 2), device="tpu")


def test_where_the_peak_is_and_what_each_layer_keeps():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.wide, self.out = nn.Linear(10, 10), nn.Linear(10, 5000), nn.Linear(5000, 2)

        def forward(self, x):
            x = self.narrow(x)
            x = torch.relu(self.wide(x))  # the peak
            return self.out(x)

    found = training_memory(Wide(), torch.empty(100, 10), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    lines = Path(__file__).read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "# the peak" in line and "relu" in line)
    assert found.peak_line == f"{Path(__file__).name}:{number}"
    kept = {layer.name: layer.activations for layer in found.layers}
    assert kept["narrow"] == 100 * 10 * 4
    assert kept["(network)"] == 100 * 5000 * 4  # what relu made
    assert sum(kept.values()) == found.activations
    assert {layer.name: layer.weights for layer in found.layers}["wide"] == 4 * 55_000


def test_a_convolution_whose_kernel_crashes_is_rehearsed_without_running_it():
    network = nn.Conv2d(4, 8, 1, stride=2)
    x = torch.empty(32, 4, 16, 16, device="meta").contiguous(memory_format=torch.channels_last)
    assert training_memory(network, x).peak > 0


@pytest.mark.parametrize(("loops", "measured_mib"), [(1, 84.0039), (100, 4044.0039)])
def test_what_a_stranger_measured_on_a_gpu(loops, measured_mib):
    """TylerYep/torchinfo#144: one linear layer in a loop, kept after a forward pass, without an optimizer.

    (Its number for one loop is 92.0117, as two copies of the parameters of an earlier try were left there.)
    """

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1024, 1024)

        def forward(self, x):
            for _ in range(loops):
                x = self.linear(x)
            return x

    inputs = torch.empty(10_240, 1024, device="meta")
    found = training_memory(
        Loop(), inputs, loss=lambda y: (y * y).sum()
    )  # which keeps y, as the notebook did
    kept = found.weights + found.inputs + found.activations
    assert kept / 2**20 == pytest.approx(measured_mib, abs=1e-4)


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut, as in ResNet-50 (He et al. 2016; the stride lies on the second)."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.shortcut = None
        if stride != 1 or inputs != 4 * width:
            convolution = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm3(self.conv3(functional.relu(self.norm2(self.conv2(y)), inplace=True)))
        y += x if self.shortcut is None else self.shortcut(x)
        return functional.relu(y, inplace=True)


def resnet50():
    blocks, inputs = [], 64
    for width, depth, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(depth):
            blocks.append(Bottleneck(inputs, width, first if number == 0 else 1))
            inputs = 4 * width
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    return nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *blocks, *tail)


def test_resnet50_as_a_stranger_measured_it_on_a_gpu():
    """LiuXiaoxuanPKU/GACT-ICML#2: 224 pixels, batch 64, SGD; 5343.42 - 134.48 MiB kept, peak 5641.37."""
    with torch.device("meta"):
        network, x = resnet50(), torch.empty(64, 3, 224, 224)
    assert sum(p.numel() for p in network.parameters()) == 25_557_032
    found = training_memory(network, x, loss=classification_loss, device="cuda")
    assert found.activations / 2**20 == pytest.approx(5343.42 - 134.48, rel=1e-3)
    assert found.peak / 2**20 == pytest.approx(5641.37, rel=0.03)  # cuDNN's workspaces are not in ours
    assert found.peak + found.reserve > 5641.37 * 2**20


@pytest.mark.parametrize(
    ("precision", "gigabytes"), [("fp32", 5.04), ("fp32-adamw8bit", 1.26), ("fp32-adamw4bit", 0.63)]
)
def test_states_of_a_large_transformer_as_a_stranger_measured_them(precision, gigabytes):
    """pytorch/ao#478: AdamW's states of ViT-H, 630 million parameters (scales are not in its numbers)."""
    with torch.device("meta"):
        layers = [nn.Linear(1280, 1280, bias=False) for _ in range(round(630e6 / 1280**2))]
    optimizer = "adamw" if precision == "fp32" else None
    found = training_memory(
        nn.Sequential(*layers), torch.empty(1, 1280), precision=precision, optimizer=optimizer, device="cuda"
    )
    assert found.states / 1e9 == pytest.approx(gigabytes, rel=0.07)


def test_a_gated_layer_counted_by_hand():
    """ucbrise/actnn#38: GEGLU of 640 and 5,120 on (128, 2304, 640): 12,079.6 MB in float32."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Linear(640, 5120)

        def forward(self, x):
            values, gate = self.both(x).chunk(2, dim=-1)
            return values * functional.gelu(gate)

    with torch.device("meta"):
        network, x = Gated(), torch.empty(128, 2304, 640)
    found = training_memory(network, x, loss=lambda y: (y * y).sum(), device="cuda")  # which keeps y, too
    assert found.activations / 1e6 == pytest.approx(6039.8 + 2 * 3019.9, rel=1e-3)
