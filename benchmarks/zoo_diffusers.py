"""Networks of diffusers, of one or two layers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from zoo_case import Case, images, load

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


def diffusers_cases() -> dict[str, Case]:
    return {
        name: Case(
            "diffusers",
            partial(_diffusers, network, **more),
            inputs,
            lambda net: net.enable_gradient_checkpointing(),
        )
        for name, (network, more, inputs) in _DIFFUSERS.items()
    }
