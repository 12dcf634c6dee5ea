"""What the meta device does otherwise than a CPU: attention, which there would keep its whole matrix."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def as_on_cpu(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a torch function; attention by the fused operation that CPUs take where they can."""
    if function is functional.scaled_dot_product_attention:
        return _attention(*args, **kwargs)
    return function(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    fused = (
        query.is_meta
        and query.dim() == 4
        and dropout_p == 0.0
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and query.shape[1] == key.shape[1]
        and (attn_mask is None or not attn_mask.requires_grad)
    )
    if not fused:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    result: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return result
