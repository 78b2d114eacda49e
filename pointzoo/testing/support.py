"""What the checks share: small clouds, comparisons, and the wrapper that turns faults into errors.

Shape legend: B clouds, N points, C point channels, D scene channels, T tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import EncoderConfig, EncoderOutput, PointEncoder
from pointzoo.errors import CheckFailedError

Make: TypeAlias = Callable[[], PointEncoder]
"""Builds a fresh encoder from a fixed seed, ready to use."""

Check: TypeAlias = Callable[[Make], None]
"""Raises :class:`~pointzoo.errors.CheckFailedError` if an encoder breaks one promise."""

SIZES = (40, 1, 7, 65)
"""Points per cloud: unequal, with a single point in the middle."""

TOLERANCE = 2e-5
"""Allowed difference over the largest value: float32 sums in another order give about 1e-6."""


def conformance(check: Check) -> Check:
    """Turn any error of the encoder into a failed check, and keep the global random state.

    The generator starts at the same state for every check, so that an encoder passes or fails
    alike whatever ran before.
    """
    promise = str(check.__doc__).splitlines()[0].rstrip(".")

    @functools.wraps(check)
    def run(make: Make) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                check(make)
            except CheckFailedError:
                raise
            except Exception as error:
                raise CheckFailedError(
                    expected=f"{check.__name__} to run ({promise})",
                    got=f"{type(error).__name__}: {error}",
                    fix="Look at the traceback of the error above.",
                ) from error

    return run


def require(holds: bool, *, expected: str, got: str, fix: str) -> None:
    """Raise unless a promise holds.

    Raises:
        CheckFailedError: ``holds`` is false.
    """
    if not holds:
        raise CheckFailedError(expected=expected, got=got, fix=fix)


def make_cloud(points: int, seed: int = 0) -> PointCloud:
    """Return a lopsided cloud with colours and normals, a few metres across, away from 0."""
    rng = np.random.default_rng([points, seed])
    normals = rng.normal(size=(points, 3))
    return PointCloud(
        coords=rng.normal(size=(points, 3)) * [1.0, 2.0, 0.5] + [5.0, -3.0, 1.0],
        colors=rng.uniform(size=(points, 3)),
        normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
    )


def make_clouds(sizes: Sequence[int] = SIZES) -> list[PointCloud]:
    """Return one cloud per size, each with its own points."""
    return [make_cloud(points, seed) for seed, points in enumerate(sizes)]


def make_batch(encoder: PointEncoder, clouds: Sequence[PointCloud] | None = None) -> PointBatch:
    """Preprocess clouds (default: :func:`make_clouds`) and collate them."""
    ready = [encoder.preprocess(cloud) for cloud in clouds or make_clouds()]
    return PointBatch.collate([coords for coords, _ in ready], [extra for _, extra in ready])


def encode(encoder: PointEncoder, batch: PointBatch, **options: Any) -> EncoderOutput:
    """Encode without gradients."""
    with torch.no_grad():
        output: EncoderOutput = encoder(batch, **options)
    return output


def encode_cloud(encoder: PointEncoder, cloud: PointCloud) -> EncoderOutput:
    """Encode a single cloud without gradients."""
    return encode(encoder, make_batch(encoder, [cloud]))


def points_of(output: EncoderOutput) -> Tensor:
    """Return the point features, which were asked for.

    Raises:
        CheckFailedError: There are none.
    """
    if output.point is None:
        raise CheckFailedError(
            expected="point features from forward(batch)",
            got="None",
            fix="Compute them unless points=False.",
        )
    return output.point


def rebuild(encoder: PointEncoder, **changes: Any) -> PointEncoder:
    """Build another encoder of the same class, with a changed config, in evaluation mode."""
    kind: Callable[[EncoderConfig], PointEncoder] = type(encoder)  # a concrete one takes its config
    return kind(dataclasses.replace(encoder.config, **changes)).eval()


def tensors_of(output: EncoderOutput) -> dict[str, Tensor]:
    """Return what is there, by name."""
    named = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    for number, level in enumerate(named.pop("levels")):
        parts = ("features", "coords", "grid_coords", "offsets")
        named.update({f"levels[{number}].{part}": getattr(level, part) for part in parts})
    return {name: value for name, value in named.items() if value is not None}


def features_of(output: EncoderOutput) -> dict[str, Tensor]:
    """Return the tensors that depend on the weights, by name."""
    kept = ("scene", "point", "tokens", "features")
    return {k: value for k, value in tensors_of(output).items() if k.split(".")[-1] in kept}


def random_projection(output: EncoderOutput) -> Tensor:
    """Return one number in which every feature counts with its own fixed weight.

    A plain sum would hide faults: behind a layer normalisation it is constant.
    """
    generator = torch.Generator().manual_seed(7)
    total = output.scene.new_zeros(())
    for value in features_of(output).values():
        weights = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        total = total + (value * weights.to(value)).sum()
    return total


def require_close(got: Tensor, expected: Tensor, *, what: str, fix: str) -> None:
    """Raise unless two tensors agree up to :data:`TOLERANCE`.

    Raises:
        CheckFailedError: Shapes differ, or values do.
    """
    same = got.shape == expected.shape
    require(same, expected=f"{what} of shape {_shape(expected)}", got=_shape(got), fix=fix)
    largest = max(float(expected.abs().max()), 1e-12) if expected.numel() else 1.0
    error = float((got - expected).abs().max()) / largest if expected.numel() else 0.0
    require(
        error <= TOLERANCE,
        expected=f"{what} up to {TOLERANCE:g} of its largest value",
        got=f"a difference of {error:g}",
        fix=fix,
    )


def require_identical(got: EncoderOutput, expected: EncoderOutput, *, what: str, fix: str) -> None:
    """Raise unless two outputs hold the same bits.

    Raises:
        CheckFailedError: Something is missing, or one bit differs.
    """
    left, right = tensors_of(got), tensors_of(expected)
    names = f"{what}: {sorted(right)}"
    require(left.keys() == right.keys(), expected=names, got=str(sorted(left)), fix=fix)
    unequal = [name for name in left if not torch.equal(left[name], right[name])]
    require(not unequal, expected=f"{what}, bit for bit", got=f"other values in {unequal}", fix=fix)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
