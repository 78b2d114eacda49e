"""Checkpoints of other code bases as weight folders that :func:`pointzoo.load_encoder` reads."""

from pointzoo.convert.pointcept import Conversion, convert_pointcept

__all__ = ["Conversion", "convert_pointcept"]
