"""Encoders that leave Python: ONNX files, written operator by operator from the weights.

Nothing is traced: a file holds standard operators alone, whatever release of PyTorch is there, and
works for any number of points. Each network has a module that writes it down
(:mod:`~pointzoo.onnx_export.vit3d` and so on) beside the encoder that it has to equal.
"""

from pointzoo.onnx_export.check import Agreement, onnx_inputs
from pointzoo.onnx_export.file import OnnxFile, export_onnx

__all__ = ["Agreement", "OnnxFile", "export_onnx", "onnx_inputs"]
