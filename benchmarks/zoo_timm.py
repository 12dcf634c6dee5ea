"""Networks of timm, those of few parameters or made smaller."""

from functools import partial
from typing import Any

from torch import nn
from zoo_case import Case, images, load

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


def timm_cases() -> dict[str, Case]:
    return {
        name: Case(
            "timm",
            partial(_timm, name, **more),
            partial(images, side),
            lambda net: net.set_grad_checkpointing(True),
        )
        for name, (side, more) in _TIMM.items()
    }
