"""Networks of other packages, small and with random weights, for benchmarks/zoo.py.

Nothing is downloaded: where a package has no small network by name, a configuration of few layers makes one.
A case builds its network and its inputs, and knows the package's own switch for activation recomputation.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

# package: what is imported of it
PACKAGES = {
    "torchvision": "torchvision",
    "timm": "timm",
    "transformers": "transformers",
    "diffusers": "diffusers",
    "torch-geometric": "torch_geometric",
    "pytorchcv": "pytorchcv",
    "vit-pytorch": "vit_pytorch",
    "x-transformers": "x_transformers",
}


@dataclass(frozen=True)
class Case:
    """One network: how to build it, its inputs, and the package's switch for recomputation.

    ``inputs`` are arguments by position (a list) or by name (a dict). ``recompute`` switches recomputation on
    in a network, and ``recomputing`` builds one that has it on; a case has at most one of the two.
    """

    package: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], list[Any] | dict[str, Any]]
    recompute: Callable[[Any], Any] | None = None
    recomputing: Callable[[], nn.Module] | None = None


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def load(package: str) -> Any:
    """Import a package. Most of them import torchvision, if it is there; its compiled operators may not load
    beside this torch, and it does without.
    """
    if installed("torchvision") is not None:
        _define_missing_operators()
    return importlib.import_module(PACKAGES.get(package, package))


def _define_missing_operators() -> None:
    """Give torchvision's Python the names of the operators that it asks for, without the operators."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


def images(side: int, channels: int = 3, batch: int = 2) -> list[Tensor]:
    """A batch of images."""
    return [torch.randn(batch, channels, side, side)]


def words(**more: Any) -> dict[str, Any]:
    """A batch of sentences for transformers."""
    return {"input_ids": torch.randint(4, 60, (2, 12)), **more}


def pixels(side: int = 32) -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, side, side)}


# ---------------------------------------------------------------- torchvision

_TV = "torchvision"
# name in torchvision.models: (side, arguments)
_TV_NAMES: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (32, {}),
    "wide_resnet50_2": (32, {}),
    "mobilenet_v2": (32, {"width_mult": 0.35}),
    "mobilenet_v3_small": (32, {}),
    "shufflenet_v2_x0_5": (32, {}),
    "squeezenet1_1": (64, {}),
    "mnasnet0_5": (32, {}),
    "efficientnet_b0": (32, {}),
    "regnet_y_400mf": (32, {}),
    "regnet_x_400mf": (32, {}),
    "googlenet": (64, {"aux_logits": False, "init_weights": False}),
    "alexnet": (64, {}),
}
_TV_CLASSES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vision_transformer": (
        "VisionTransformer",
        32,
        {
            "image_size": 32,
            "patch_size": 8,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 32,
            "mlp_dim": 64,
            "dropout": 0.1,
        },
    ),
    "swin": (
        "SwinTransformer",
        32,
        {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": [4, 4]},
    ),
    "maxvit": (
        "MaxVit",
        64,
        {
            "input_size": (64, 64),
            "stem_channels": 16,
            "partition_size": 4,
            "block_channels": [16, 32],
            "block_layers": [1, 1],
            "head_dim": 8,
            "stochastic_depth_prob": 0.1,
        },
    ),
}


def _torchvision(name: str, **arguments: Any) -> nn.Module:
    load(_TV)
    models: Any = importlib.import_module("torchvision.models")
    for part in name.split("."):
        models = getattr(models, part)
    return models(**arguments)


def _torchvision_cases() -> dict[str, Case]:
    cases = {
        name: Case(_TV, partial(_torchvision, name, num_classes=10, **more), partial(images, side))
        for name, (side, more) in _TV_NAMES.items()
    }
    cases |= {
        name: Case(_TV, partial(_torchvision, kind, num_classes=10, **more), partial(images, side))
        for name, (kind, side, more) in _TV_CLASSES.items()
    }
    dense = partial(
        _torchvision, "DenseNet", growth_rate=8, block_config=(2, 3), num_init_features=16, num_classes=10
    )
    cases["densenet"] = Case(
        _TV, dense, partial(images, 32), recomputing=partial(dense, memory_efficient=True)
    )
    cases["lraspp_mobilenet_v3_large"] = Case(
        _TV,
        partial(
            _torchvision,
            "segmentation.lraspp_mobilenet_v3_large",
            weights=None,
            weights_backbone=None,
            num_classes=4,
        ),
        partial(images, 64),
    )
    cases["r3d"] = Case(
        _TV,
        partial(_torchvision, "video.mc3_18", num_classes=4),
        lambda: [torch.randn(2, 3, 4, 16, 16)],
    )
    return cases


# ---------------------------------------------------------------- timm

_SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}
# name in timm: (side, arguments)
_TIMM: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (32, {}),
    "resnet26d": (32, {}),
    "seresnet18": (32, {}),
    "ecaresnet26t": (32, {}),
    "skresnet18": (32, {}),
    "res2net50_14w_8s": (32, {}),
    "mobilenetv2_050": (32, {}),
    "mobilenetv3_small_050": (32, {}),
    "mobilenetv4_conv_small_050": (64, {}),
    "efficientnet_b0": (32, {}),
    "efficientnet_lite0": (32, {}),
    "tf_efficientnetv2_b0": (32, {}),
    "ghostnet_050": (64, {}),
    "ghostnetv2_100": (64, {}),
    "mnasnet_small": (32, {}),
    "fbnetc_100": (32, {}),
    "tinynet_e": (32, {}),
    "lcnet_050": (32, {}),
    "regnetx_002": (32, {}),
    "regnety_002": (32, {}),
    "regnetz_005": (32, {}),
    "nf_regnet_b0": (32, {}),
    "nf_resnet26": (32, {}),
    "densenet121": (32, {"growth_rate": 8, "block_config": (2, 2, 2)}),
    "dla46_c": (64, {}),
    "hrnet_w18_small": (64, {}),
    "ese_vovnet19b_slim_dw": (32, {}),
    "selecsls42": (64, {}),
    "dpn48b": (32, {}),
    "gernet_s": (32, {}),
    "repvgg_a0": (32, {}),
    "mobileone_s0": (32, {}),
    "fastvit_t8": (64, {}),
    "repvit_m0_9": (64, {}),
    "starnet_s1": (64, {}),
    "mambaout_femto": (64, {}),
    "inception_next_atto": (64, {}),
    "convnext_atto": (32, {}),
    "convnextv2_atto": (32, {}),
    "convmixer_1024_20_ks9_p14": (28, {}),
    "vit_tiny_patch16_224": (32, {"img_size": 32, "patch_size": 8, **_SMALL}),
    "deit_tiny_distilled_patch16_224": (32, {"img_size": 32, "patch_size": 8, **_SMALL}),
    "eva02_tiny_patch14_224": (28, {"img_size": 28, **_SMALL}),
    "beit_base_patch16_224": (32, {"img_size": 32, **_SMALL}),
    "cait_xxs24_224": (32, {"img_size": 32, **_SMALL}),
    "xcit_nano_12_p16_224": (32, {"img_size": 32, **_SMALL}),
    "pit_ti_224": (64, {"img_size": 64, "base_dims": [16, 16, 16], "depth": [1, 1, 1], "heads": [1, 2, 4]}),
    "swin_tiny_patch4_window7_224": (
        56,
        {"img_size": 56, "embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2)},
    ),
    "swinv2_tiny_window8_256": (
        64,
        {"img_size": 64, "embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2)},
    ),
    "mixer_s32_224": (64, {"img_size": 64}),
    "resmlp_12_224": (32, {"img_size": 32}),
    "gmlp_ti16_224": (32, {"img_size": 32}),
    "poolformer_s12": (32, {}),
    "caformer_s18": (32, {}),
    "mobilevit_xxs": (64, {}),
    "mobilevitv2_050": (64, {}),
    "edgenext_xx_small": (64, {}),
    "efficientformerv2_s0": (64, {"img_size": 64}),
    "levit_128s": (64, {"img_size": 64}),
    "pvt_v2_b0": (64, {}),
    "twins_svt_small": (
        64,
        {"img_size": 64, "embed_dims": (16, 16, 32, 32), "num_heads": (1, 1, 2, 2), "depths": (1, 1, 1, 1)},
    ),
    "coatnet_pico_rw_224": (64, {"img_size": 64}),
    "maxvit_rmlp_pico_rw_256": (64, {"img_size": 64}),
    "tiny_vit_5m_224": (224, {}),
    "efficientvit_b0": (64, {}),
    "efficientvit_m0": (64, {"img_size": 64}),
    "visformer_tiny": (64, {"img_size": 64}),
    "botnet26t_256": (64, {"img_size": 64}),
    "lambda_resnet26t": (64, {"img_size": 64}),
    "halonet26t": (256, {}),
    "davit_tiny": (64, {"depths": (1, 1), "embed_dims": (16, 32), "num_heads": (1, 2)}),
    "focalnet_tiny_srf": (32, {}),
    "hiera_tiny_224": (64, {"img_size": 64, "embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1)}),
    "nest_tiny": (64, {"img_size": 64}),
}


def _timm(name: str, **arguments: Any) -> nn.Module:
    return load("timm").create_model(name, pretrained=False, num_classes=10, **arguments)


def _timm_cases() -> dict[str, Case]:
    return {
        name: Case(
            "timm",
            partial(_timm, name, **more),
            partial(images, side),
            lambda net: net.set_grad_checkpointing(True),
        )
        for name, (side, more) in _TIMM.items()
    }


# ---------------------------------------------------------------- transformers

_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 224,
    "vocab_size": 224,
    "max_position_embeddings": 224,
}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 64, "n_positions": 64} | _IDS
_SEQ = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
} | _IDS
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 64} | _IDS
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_GQA = _TEXT | {"num_key_value_heads": 1, "head_dim": 16} | _IDS
_CLIP_TEXT = _TEXT | {"projection_dim": 32} | _IDS
_SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 32,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
}
_MARKS = partial(words)
_BOTH = lambda: words(decoder_input_ids=torch.randint(4, 60, (2, 10)))  # noqa: E731
# name: (configuration's class, network's class, arguments of the configuration, inputs)
_TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any], Callable[[], Any]]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", _TEXT, _MARKS),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", _TEXT | _IDS, _MARKS),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 64},
        _MARKS,
    ),
    "albert": ("AlbertConfig", "AlbertForMaskedLM", _TEXT | {"embedding_size": 16}, _MARKS),
    "electra": ("ElectraConfig", "ElectraForMaskedLM", _TEXT | {"embedding_size": 16}, _MARKS),
    "deberta": ("DebertaConfig", "DebertaForSequenceClassification", _TEXT, _MARKS),
    "deberta-v2": ("DebertaV2Config", "DebertaV2ForSequenceClassification", _TEXT, _MARKS),
    "modernbert": ("ModernBertConfig", "ModernBertForMaskedLM", _TEXT | _IDS, _MARKS),
    "fnet": ("FNetConfig", "FNetForSequenceClassification", _TEXT | {"tpu_short_seq_length": 12}, _MARKS),
    "mobilebert": (
        "MobileBertConfig",
        "MobileBertForSequenceClassification",
        _TEXT | {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
        _MARKS,
    ),
    "squeezebert": ("SqueezeBertConfig", "SqueezeBertForSequenceClassification", _TEXT | {
        "embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2, "post_attention_groups": 1,
        "intermediate_groups": 2, "output_groups": 2}, _MARKS),
    "xlnet": (
        "XLNetConfig",
        "XLNetForSequenceClassification",
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "vocab_size": 64},
        _MARKS,
    ),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2, _MARKS),
    "gpt-neo": (
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "vocab_size": 64,
            "max_position_embeddings": 64,
        }
        | _IDS,
        _MARKS,
    ),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _TEXT | _IDS, _MARKS),
    "gptj": ("GPTJConfig", "GPTJForCausalLM", _GPT2 | {"rotary_dim": 8}, _MARKS),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        _TEXT | {"ffn_dim": 64, "word_embed_proj_dim": 32} | _IDS,
        _MARKS,
    ),
    "bloom": (
        "BloomConfig",
        "BloomForCausalLM",
        {"hidden_size": 32, "n_layer": 2, "n_head": 2, "vocab_size": 64} | _IDS,
        _MARKS,
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _GQA, _MARKS),
    "mistral": ("MistralConfig", "MistralForCausalLM", _GQA, _MARKS),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        _GQA | {"num_local_experts": 3, "num_experts_per_tok": 2},
        _MARKS,
    ),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _GQA, _MARKS),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _GQA, _MARKS),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", _GQA, _MARKS),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", _GQA, _MARKS),
    "phi": ("PhiConfig", "PhiForCausalLM", _TEXT | _IDS, _MARKS),
    "falcon": ("FalconConfig", "FalconForCausalLM", _TEXT | _IDS, _MARKS),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", _GQA, _MARKS),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", _TEXT | {"num_key_value_heads": 2} | _IDS, _MARKS),
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 64} | _IDS,
        _MARKS,
    ),
    "t5": ("T5Config", "T5ForConditionalGeneration", _T5, _BOTH),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", _T5, _BOTH),
    "bart": ("BartConfig", "BartForConditionalGeneration", _SEQ, _BOTH),
    "mbart": ("MBartConfig", "MBartForConditionalGeneration", _SEQ, _BOTH),
    "pegasus": ("PegasusConfig", "PegasusForConditionalGeneration", _SEQ, _BOTH),
    "marian": ("MarianConfig", "MarianMTModel", _SEQ, _BOTH),
    "whisper": (
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        _SEQ | {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16},
        lambda: {
            "input_features": torch.randn(2, 8, 32),
            "decoder_input_ids": torch.randint(4, 60, (2, 6)),
        },
    ),
    "wav2vec2": (
        "Wav2Vec2Config",
        "Wav2Vec2ForCTC",
        _SPEECH,
        lambda: {"input_values": torch.randn(2, 400)},
    ),
    "hubert": ("HubertConfig", "HubertForCTC", _SPEECH, lambda: {"input_values": torch.randn(2, 400)}),
    "vit": ("ViTConfig", "ViTForImageClassification", _VIT, pixels),
    "deit": ("DeiTConfig", "DeiTForImageClassification", _VIT, pixels),
    "beit": ("BeitConfig", "BeitForImageClassification", _VIT, pixels),
    "dinov2": ("Dinov2Config", "Dinov2ForImageClassification", _VIT, pixels),
    "vit-mae": (
        "ViTMAEConfig",
        "ViTMAEForPreTraining",
        _VIT
        | {
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
        pixels,
    ),
    "swin": (
        "SwinConfig",
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}
        | {"window_size": 4},
        pixels,
    ),
    "convnext": (
        "ConvNextConfig",
        "ConvNextForImageClassification",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        pixels,
    ),
    "resnet": (
        "ResNetConfig",
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        pixels,
    ),
    "segformer": (
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [2, 1],
            "hidden_sizes": [8, 16],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 16,
        },
        pixels,
    ),
    "clip-vision": (
        "CLIPVisionConfig",
        "CLIPVisionModelWithProjection",
        _VIT | {"projection_dim": 16},
        pixels,
    ),
    "clip-text": ("CLIPTextConfig", "CLIPTextModelWithProjection", _CLIP_TEXT, _MARKS),
    "siglip-vision": ("SiglipVisionConfig", "SiglipVisionModel", _VIT, pixels),
    "mobilevit": (
        "MobileViTConfig",
        "MobileViTForImageClassification",
        {"image_size": 32, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32]},
        pixels,
    ),
    "poolformer": (
        "PoolFormerConfig",
        "PoolFormerForImageClassification",
        {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
        pixels,
    ),
}  # fmt: skip


def _transformers(config: str, network: str, **arguments: Any) -> nn.Module:
    library = load("transformers")
    net = getattr(library, network)(getattr(library, config)(**arguments))
    for module in net.modules():
        if hasattr(module, "config"):
            module.config.use_cache = False  # as the switch for recomputation does
    return net


def _transformers_cases() -> dict[str, Case]:
    return {
        name: Case(
            "transformers",
            partial(_transformers, config, network, **more),
            inputs,
            lambda net: net.gradient_checkpointing_enable(),
        )
        for name, (config, network, more, inputs) in _TRANSFORMERS.items()
    }


# ---------------------------------------------------------------- diffusers

_BLOCKS = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
_DIFFUSERS: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "unet-2d": (
        "UNet2DModel",
        _BLOCKS
        | {
            "sample_size": 16,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": 8,
        },
        lambda: [torch.randn(2, 3, 16, 16), torch.tensor([3, 7])],
    ),
    "unet-2d-condition": (
        "UNet2DConditionModel",
        _BLOCKS
        | {
            "sample_size": 16,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 16,
            "attention_head_dim": 4,
        },
        lambda: [torch.randn(2, 4, 16, 16), torch.tensor([3, 7]), torch.randn(2, 5, 16)],
    ),
    "unet-1d": (
        "UNet1DModel",
        {
            "sample_size": 32,
            "in_channels": 2,
            "out_channels": 2,
            "extra_in_channels": 64,
            "block_out_channels": (32, 32),
            "down_block_types": ("DownBlock1DNoSkip", "DownBlock1D"),
            "up_block_types": ("UpBlock1D", "UpBlock1DNoSkip"),
        },
        lambda: [torch.randn(2, 2, 32), torch.tensor([3, 7])],
    ),
    "autoencoder-kl": (
        "AutoencoderKL",
        _BLOCKS
        | {
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "sample_size": 16,
        },
        partial(images, 16),
    ),
    "autoencoder-tiny": (
        "AutoencoderTiny",
        {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
        partial(images, 16),
    ),
    "vq-model": (
        "VQModel",
        {
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "num_vq_embeddings": 16,
        },
        partial(images, 16),
    ),
    "dit": (
        "DiTTransformer2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "num_layers": 2,
            "sample_size": 8,
            "num_embeds_ada_norm": 10,
        },
        lambda: {
            "hidden_states": torch.randn(2, 4, 8, 8),
            "timestep": torch.tensor([3, 7]),
            "class_labels": torch.tensor([1, 2]),
        },
    ),
    "pixart": (
        "PixArtTransformer2DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "num_layers": 2,
            "sample_size": 8,
            "cross_attention_dim": 16,
            "caption_channels": 16,
        },
        lambda: {
            "hidden_states": torch.randn(2, 4, 8, 8),
            "encoder_hidden_states": torch.randn(2, 5, 16),
            "timestep": torch.tensor([3, 7]),
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        },
    ),
    "sd3": (
        "SD3Transformer2DModel",
        {
            "sample_size": 8,
            "in_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 16,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 16,
            "out_channels": 4,
            "pos_embed_max_size": 16,
        },
        lambda: {
            "hidden_states": torch.randn(2, 4, 8, 8),
            "encoder_hidden_states": torch.randn(2, 5, 16),
            "pooled_projections": torch.randn(2, 16),
            "timestep": torch.tensor([3, 7]),
        },
    ),
    "flux": (
        "FluxTransformer2DModel",
        {
            "in_channels": 4,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 16,
            "pooled_projection_dim": 16,
            "axes_dims_rope": (4, 4, 8),
        },
        lambda: {
            "hidden_states": torch.randn(2, 16, 4),
            "encoder_hidden_states": torch.randn(2, 5, 16),
            "pooled_projections": torch.randn(2, 16),
            "timestep": torch.tensor([0.3, 0.7]),
            "img_ids": torch.zeros(16, 3),
            "txt_ids": torch.zeros(5, 3),
        },
    ),
    "prior": (
        "PriorTransformer",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "embedding_dim": 16,
            "num_embeddings": 5,
            "additional_embeddings": 4,
        },
        lambda: {
            "hidden_states": torch.randn(2, 16),
            "timestep": torch.tensor([3, 7]),
            "proj_embedding": torch.randn(2, 16),
            "encoder_hidden_states": torch.randn(2, 5, 16),
        },
    ),
}


def _diffusers(name: str, **arguments: Any) -> nn.Module:
    return getattr(load("diffusers"), name)(**arguments)


def _diffusers_cases() -> dict[str, Case]:
    return {
        name: Case(
            "diffusers",
            partial(_diffusers, network, **more),
            inputs,
            lambda net: net.enable_gradient_checkpointing(),
        )
        for name, (network, more, inputs) in _DIFFUSERS.items()
    }


# ---------------------------------------------------------------- torch-geometric


def graph() -> list[Tensor]:
    """Twelve nodes and forty edges."""
    return [torch.randn(12, 8), torch.randint(0, 12, (2, 40))]


def _geometric(name: str, **arguments: Any) -> nn.Module:
    load("torch-geometric")
    models: Any = importlib.import_module("torch_geometric.nn.models")
    return getattr(models, name)(8, 16, 2, 4, **arguments)


def _layers(name: str, *arguments: Any, **more: Any) -> nn.Module:
    """Two layers of one kind with a ReLU between."""
    load("torch-geometric")
    library: Any = importlib.import_module("torch_geometric.nn")
    kind = getattr(library, name)
    return library.Sequential(
        "x, edges",
        [
            (kind(8, 16, *arguments, **more), "x, edges -> x"),
            nn.ReLU(inplace=True),
            (kind(16, 4, *arguments, **more), "x, edges -> x"),
        ],
    )


def _deep_gcn(recomputed: bool) -> nn.Module:
    load("torch-geometric")
    library: Any = importlib.import_module("torch_geometric.nn")

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(8, 16), nn.Linear(16, 4)
            self.layers = nn.ModuleList(
                library.DeepGCNLayer(
                    library.GENConv(16, 16, num_layers=2),
                    nn.LayerNorm(16),
                    nn.ReLU(inplace=True),
                    block="res+",
                    dropout=0.1,
                    ckpt_grad=recomputed,
                )
                for _ in range(2)
            )

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            x = self.encode(x)
            for layer in self.layers:
                x = layer(x, edges)
            return self.decode(x)

    return Deep()


def _geometric_cases() -> dict[str, Case]:
    kind = "torch-geometric"
    cases = {
        name: Case(kind, partial(_geometric, name, dropout=0.1), graph)
        for name in ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN")
    }
    pna = {"aggregators": ["mean", "max", "std"], "scalers": ["identity", "amplification"]}
    degrees = torch.tensor([0, 3, 4, 3, 2])
    cases["PNA"] = Case(kind, partial(_geometric, "PNA", deg=degrees, **pna), graph)
    layers: dict[str, dict[str, Any]] = {
        "ChebConv": {"K": 3},
        "TAGConv": {},
        "ARMAConv": {},
        "GATv2Conv": {},
        "TransformerConv": {},
        "GENConv": {},
        "SGConv": {"K": 2},
        "LEConv": {},
        "ClusterGCNConv": {},
        "ResGatedGraphConv": {},
        "SuperGATConv": {},
    }
    cases |= {name: Case(kind, partial(_layers, name, **more), graph) for name, more in layers.items()}
    cases["DeepGCN"] = Case(kind, partial(_deep_gcn, False), graph, recomputing=partial(_deep_gcn, True))
    return cases


# ---------------------------------------------------------------- pytorchcv

_CV = {
    "resnet10": 224,
    "preresnet10": 224,
    "seresnet10": 224,
    "sepreresnet10": 224,
    "mobilenet_wd4": 224,
    "fdmobilenet_wd4": 224,
    "mobilenetv2_wd4": 224,
    "mobilenetv3_small_w7d20": 224,
    "shufflenet_g1_wd4": 224,
    "shufflenetv2_wd2": 224,
    "squeezenet_v1_1": 224,
    "squeezeresnet_v1_1": 224,
    "menet108_8x1_g3": 224,
    "igcv3_wd4": 224,
    "peleenet": 224,
    "resnet20_cifar10": 32,
    "preresnet20_cifar10": 32,
    "seresnet20_cifar10": 32,
    "rir_cifar10": 32,
    "shakeshakeresnet20_2x16d_cifar10": 32,
    "ror3_56_cifar10": 32,
}


def _pytorchcv(name: str) -> nn.Module:
    load("pytorchcv")
    library: Any = importlib.import_module("pytorchcv.model_provider")
    return library.get_model(name, pretrained=False)


def _pytorchcv_cases() -> dict[str, Case]:
    return {
        name: Case("pytorchcv", partial(_pytorchcv, name), partial(images, side))
        for name, side in _CV.items()
    }


# ---------------------------------------------------------------- vit-pytorch and x-transformers

_PATCHES = {
    "image_size": 32,
    "patch_size": 8,
    "num_classes": 10,
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "mlp_dim": 64,
}
_VIT_PYTORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit.ViT", _PATCHES | {"dropout": 0.1}),
    "simple-vit": ("simple_vit.SimpleViT", _PATCHES),
    "deepvit": ("deepvit.DeepViT", _PATCHES),
    "cait": ("cait.CaiT", _PATCHES | {"cls_depth": 1}),
    "parallel-vit": ("parallel_vit.ViT", _PATCHES),
    "vit-for-small-dataset": ("vit_for_small_dataset.ViT", _PATCHES),
    "vit-with-patch-merger": ("vit_with_patch_merger.ViT", _PATCHES | {"patch_merge_layer": 1}),
}
_X: dict[str, dict[str, Any]] = {
    "decoder": {},
    "rotary-rmsnorm-swiglu": {
        "rotary_pos_emb": True,
        "use_rmsnorm": True,
        "ff_swish": True,
        "ff_glu": True,
    },
    "alibi": {"alibi_pos_bias": True, "alibi_num_heads": 1},
    "qk-norm": {"attn_qk_norm": True},
    "sandwich": {"sandwich_norm": True, "rel_pos_bias": True},
}


def _vit_pytorch(name: str, **arguments: Any) -> nn.Module:
    load("vit-pytorch")
    module, kind = name.split(".")
    return getattr(importlib.import_module(f"vit_pytorch.{module}"), kind)(**arguments)


def _x_transformers(**arguments: Any) -> nn.Module:
    library = load("x-transformers")
    layers = library.Decoder(dim=32, depth=2, heads=2, attn_dim_head=32, **arguments)
    return library.TransformerWrapper(num_tokens=64, max_seq_len=16, attn_layers=layers)


def _other_cases() -> dict[str, dict[str, Case]]:
    return {
        "vit-pytorch": {
            name: Case("vit-pytorch", partial(_vit_pytorch, kind, **more), partial(images, 32))
            for name, (kind, more) in _VIT_PYTORCH.items()
        },
        "x-transformers": {
            name: Case(
                "x-transformers",
                partial(_x_transformers, **more),
                lambda: [torch.randint(0, 64, (2, 12))],
            )
            for name, more in _X.items()
        },
    }


def cases() -> dict[str, Case]:
    """All networks, by package and name; none is built and nothing is imported."""
    groups = {
        "torchvision": _torchvision_cases(),
        "timm": _timm_cases(),
        "transformers": _transformers_cases(),
        "diffusers": _diffusers_cases(),
        "torch-geometric": _geometric_cases(),
        "pytorchcv": _pytorchcv_cases(),
        **_other_cases(),
    }
    return {f"{package}/{name}": case for package, found in groups.items() for name, case in found.items()}
