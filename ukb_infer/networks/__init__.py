"""Encoders, decoders and heads, pretrained weights, and wrappers that make networks fast.

Names are imported on first use, so that reading a manifest does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.networks.backbones import BACKBONES
    from ukb_infer.networks.build import MeanVarianceNetwork, build_network, transfer_weights
    from ukb_infer.networks.compiled import WORTH_COMPILING, CompiledMembers, CompiledNetwork, choose_backend
    from ukb_infer.networks.decoders import ReconstructionDecoder, SegmentationDecoder
    from ukb_infer.networks.encoder import Encoder, EncoderSpec, adapt_first_convolution, build_encoder
    from ukb_infer.networks.head import RowLinear
    from ukb_infer.networks.pretrained import Pretrained, load_pretrained, save_pretrained, transfer
    from ukb_infer.networks.scaling import InputScaling

__getattr__ = on_first_use(
    __name__,
    {
        "backbones": "BACKBONES",
        "build": "MeanVarianceNetwork build_network transfer_weights",
        "compiled": "WORTH_COMPILING CompiledMembers CompiledNetwork choose_backend",
        "decoders": "ReconstructionDecoder SegmentationDecoder",
        "encoder": "Encoder EncoderSpec adapt_first_convolution build_encoder",
        "head": "RowLinear",
        "pretrained": "Pretrained load_pretrained save_pretrained transfer",
        "scaling": "InputScaling",
    },
)
