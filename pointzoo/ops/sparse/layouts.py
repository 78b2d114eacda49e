"""Weights of sparse convolutions, to and from the layouts of other libraries.

Ours is (K, I, O): K kernel offsets enumerated x, y, z with z fastest, cross-correlation. What the
others do was measured or read on spconv 2.1.25 to 2.3.8, torchsparse 2.0.0 and @ 385f5ce, and
MinkowskiEngine 0.4.3 and 0.5.4:

============== ==================================== ============= ====================
library        shape                                odd kernels   2 x 2 x 2
============== ==================================== ============= ====================
spconv krsc    (O, k, k, k, I)                      z fastest     z fastest
spconv native  (k, k, k, O, I)                      z fastest     z fastest
torchsparse    (K, I, O), for k = 1 (I, O)          x fastest     z fastest
Minkowski      (K, I, O), for k = 1 (I, O)          x fastest     x fastest
dense          (O, I, k, k, k), transposed (I, O, k, k, k)        as ``torch.nn.functional``
============== ==================================== ============= ====================

spconv 2.2 and later store every kernel as krsc; 2.1 kept kernels of more than 32 offsets (the
5 x 5 x 5 stem of SparseUNet) native. And spconv multiplies by a 1 x 1 x 1 kernel as if its memory
held (I, O), whatever its shape says (traveller59/spconv#450, #772): networks were trained with
that, so it has to be read so.

Shapes: K kernel offsets, k edge of the kernel, I input and O output channels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from pointzoo.errors import ConfigError

SpconvLayout = Literal["krsc", "native"]


def spconv_layouts(shape: tuple[int, ...]) -> tuple[SpconvLayout, ...]:
    """Return the layouts that a shape of a spconv weight fits: one, or both where O = k.

    Raises:
        ConfigError: Neither fits.
    """
    fitting: list[SpconvLayout] = []
    if len(shape) == 5 and min(shape) > 0:
        if len(set(shape[1:4])) == 1:
            fitting.append("krsc")
        if len(set(shape[:3])) == 1:
            fitting.append("native")
    if not fitting:
        raise ConfigError(
            expected="a spconv weight (O, k, k, k, I) or (k, k, k, O, I)",
            got=f"shape {shape}",
            fix="The weight is damaged, or another library wrote it.",
        )
    return tuple(fitting)


def from_spconv(weight: Tensor, *, layout: SpconvLayout | None = None) -> Tensor:
    """Return the weight (K, I, O) of a spconv convolution: submanifold, strided or inverse.

    Args:
        weight: (O, k, k, k, I) or (k, k, k, O, I).
        layout: Which of the two; None tells it from the shape. Without effect for k = 1.

    Raises:
        ConfigError: The shape fits neither, or not ``layout``, or both (O = k) with no ``layout``.
    """
    fitting = spconv_layouts(tuple(weight.shape))
    edge, inputs = weight.shape[2], weight.shape[4]
    if edge == 1:  # read as memory, not as the shape says
        return weight.reshape(1, inputs, -1).clone()
    if (layout is None and len(fitting) > 1) or layout not in (None, *fitting):
        raise ConfigError(
            expected=f"a weight of layout {layout}" if layout else "a shape that tells the layout",
            got=f"{tuple(weight.shape)}, which fits {' and '.join(fitting)}",
            fix="Say which it is: krsc (spconv 2.2 and later) or native.",
        )
    if (layout or fitting[0]) == "native":
        weight = weight.permute(3, 0, 1, 2, 4)  # (O, k, k, k, I)
    kernel = weight.permute(1, 2, 3, 4, 0)  # (k, k, k, I, O)
    return kernel.reshape(edge**3, inputs, -1).clone()


def to_spconv(weight: Tensor, *, layout: SpconvLayout = "krsc") -> Tensor:
    """Return the spconv form of a weight (K, I, O); the inverse of :func:`from_spconv`.

    Raises:
        ConfigError: K is not a cube.
    """
    edge, inputs, outputs = _sizes(weight)
    if edge == 1:
        shape = (outputs, 1, 1, 1, inputs) if layout == "krsc" else (1, 1, 1, outputs, inputs)
        return weight.reshape(shape).clone()
    kernel = weight.reshape(edge, edge, edge, inputs, outputs)
    order = (4, 0, 1, 2, 3) if layout == "krsc" else (0, 1, 2, 4, 3)
    return kernel.permute(order).contiguous()


def from_torchsparse(kernel: Tensor) -> Tensor:
    """Return the weight (K, I, O) of a torchsparse convolution (K, I, O), or (I, O) for k = 1.

    Raises:
        ConfigError: The shape is neither.
    """
    kernel = _with_offsets(kernel)
    return _x_fastest(kernel) if len(kernel) % 2 else kernel.clone()


def to_torchsparse(weight: Tensor) -> Tensor:
    """Return the torchsparse form of a weight (K, I, O).

    Raises:
        ConfigError: K is not a cube.
    """
    return _without_offset(from_torchsparse(weight))


def from_minkowski(kernel: Tensor) -> Tensor:
    """Return the weight (K, I, O) of a MinkowskiEngine one (K, I, O), or (I, O) for k = 1.

    Raises:
        ConfigError: The shape is neither.
    """
    return _x_fastest(_with_offsets(kernel))


def to_minkowski(weight: Tensor) -> Tensor:
    """Return the MinkowskiEngine form of a weight (K, I, O).

    Raises:
        ConfigError: K is not a cube.
    """
    return _without_offset(from_minkowski(weight))


def from_dense(weight: Tensor, *, transposed: bool = False) -> Tensor:
    """Return the weight (K, I, O) of a dense convolution over axes x, y, z.

    Args:
        weight: (O, I, k, k, k) as ``conv3d`` takes it.
        transposed: It is (I, O, k, k, k) as ``conv_transpose3d`` takes it: an inverse convolution.

    Raises:
        ConfigError: The shape is another.
    """
    if weight.ndim != 5 or len(set(weight.shape[2:])) != 1:
        raise ConfigError(
            expected="a dense weight (O, I, k, k, k)",
            got=f"shape {tuple(weight.shape)}",
            fix="Pass the weight of a 3D convolution with a cubic kernel.",
        )
    order = (2, 3, 4, 0, 1) if transposed else (2, 3, 4, 1, 0)
    return weight.permute(order).flatten(0, 2).clone()


def to_dense(weight: Tensor, *, transposed: bool = False) -> Tensor:
    """Return the form of a weight (K, I, O) for ``conv3d``, or for ``conv_transpose3d``.

    Raises:
        ConfigError: K is not a cube.
    """
    edge, inputs, outputs = _sizes(weight)
    kernel = weight.reshape(edge, edge, edge, inputs, outputs)
    return kernel.permute((3, 4, 0, 1, 2) if transposed else (4, 3, 0, 1, 2)).contiguous()


def _sizes(weight: Tensor) -> tuple[int, int, int]:
    """Return k, I and O of a weight (K, I, O)."""
    edge = round(len(weight) ** (1 / 3)) if weight.ndim == 3 else 0
    if edge == 0 or edge**3 != len(weight):
        raise ConfigError(
            expected="a weight (k ** 3, I, O)",
            got=f"shape {tuple(weight.shape)}",
            fix="Only cubic kernels have a form in every library.",
        )
    return edge, weight.shape[1], weight.shape[2]


def _x_fastest(kernel: Tensor) -> Tensor:
    """Exchange the order x slowest, z fastest for its opposite; twice is nothing."""
    edge, inputs, outputs = _sizes(kernel)
    cube = kernel.reshape(edge, edge, edge, inputs, outputs)
    return cube.transpose(0, 2).reshape(kernel.shape).clone()


def _with_offsets(kernel: Tensor) -> Tensor:
    return kernel[None] if kernel.ndim == 2 else kernel


def _without_offset(kernel: Tensor) -> Tensor:
    return kernel[0] if len(kernel) == 1 else kernel
