"""Self-supervised, pretrained encoders for 3D point clouds, and the trainers that made them.

Names are imported when they are first used: ``import pointzoo`` alone does not even import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointzoo.batch import PointBatch
    from pointzoo.cloud import PointCloud
    from pointzoo.encoders.base import PointEncoder
    from pointzoo.errors import PointzooError
    from pointzoo.features import Features, extract
    from pointzoo.finetuning.api import finetune
    from pointzoo.finetuning.few_shot import FewShot, few_shot
    from pointzoo.finetuning.model import Model, load_model
    from pointzoo.inspection import inspect
    from pointzoo.io import read, write
    from pointzoo.onnx_export import OnnxFile, export_onnx
    from pointzoo.pretrain.adapt import adapt
    from pointzoo.transformer import FeatureTransformer
    from pointzoo.weights import sample_cloud, save_encoder
    from pointzoo.zoo import (
        EncoderInfo,
        create_encoder,
        encoder_info,
        list_encoders,
        load_encoder,
    )

__all__ = [
    "EncoderInfo",
    "FeatureTransformer",
    "Features",
    "FewShot",
    "Model",
    "OnnxFile",
    "PointBatch",
    "PointCloud",
    "PointEncoder",
    "PointzooError",
    "adapt",
    "create_encoder",
    "encoder_info",
    "export_onnx",
    "extract",
    "few_shot",
    "finetune",
    "inspect",
    "list_encoders",
    "load_encoder",
    "load_model",
    "read",
    "sample_cloud",
    "save_encoder",
    "write",
]

_MODULES = {
    "EncoderInfo": "zoo",
    "FeatureTransformer": "transformer",
    "Features": "features",
    "FewShot": "finetuning.few_shot",
    "Model": "finetuning.model",
    "OnnxFile": "onnx_export",
    "PointBatch": "batch",
    "PointCloud": "cloud",
    "PointEncoder": "encoders.base",
    "PointzooError": "errors",
    "adapt": "pretrain.adapt",
    "create_encoder": "zoo",
    "encoder_info": "zoo",
    "export_onnx": "onnx_export",
    "extract": "features",
    "few_shot": "finetuning.few_shot",
    "finetune": "finetuning.api",
    "inspect": "inspection",
    "list_encoders": "zoo",
    "load_encoder": "zoo",
    "load_model": "finetuning.model",
    "read": "io",
    "sample_cloud": "weights",
    "save_encoder": "weights",
    "write": "io",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("pointzoo")
    elif name in _MODULES:
        value = getattr(importlib.import_module(f"pointzoo.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module 'pointzoo' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
