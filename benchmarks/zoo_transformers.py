"""Networks of transformers and x-transformers, of two layers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from zoo_case import Case, load


def words(**more: Any) -> dict[str, Any]:
    """A batch of sentences for transformers."""
    return {"input_ids": torch.randint(4, 60, (2, 12)), **more}


def pixels(side: int = 32) -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, side, side)}


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


def transformers_cases() -> dict[str, Case]:
    return {
        name: Case(
            "transformers",
            partial(_transformers, config, network, **more),
            inputs,
            lambda net: net.gradient_checkpointing_enable(),
        )
        for name, (config, network, more, inputs) in _TRANSFORMERS.items()
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


def _x_transformers(**arguments: Any) -> nn.Module:
    library = load("x-transformers")
    layers = library.Decoder(dim=32, depth=2, heads=2, attn_dim_head=32, **arguments)
    return library.TransformerWrapper(num_tokens=64, max_seq_len=16, attn_layers=layers)


def x_transformers_cases() -> dict[str, Case]:
    return {
        name: Case(
            "x-transformers", partial(_x_transformers, **more), lambda: [torch.randint(0, 64, (2, 12))]
        )
        for name, more in _X.items()
    }
