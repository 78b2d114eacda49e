"""Recipes of random changes for training with labels, as data.

A recipe is a frozen dataclass that goes to JSON and back (:func:`recipe_to_dict`), and
:func:`change_points` applies any of them to arrays in the frame that an encoder's preprocessing
produced; :func:`change_cloud` does it to a whole cloud.

=============  ================================================================================
``scannet``    Pointcept's for semantic segmentation of ScanNet @ d74c646: :class:`SceneRecipe`
``few``        the same where few points have a label: those stay
``s3dis``      the same on a grid of 5 cm
``pointgroup`` the same for instances: 80 % of a scene, stronger shift of colours
``light``      the part of it that matters on few steps: :class:`SceneChanges`
``object``     shapes as in the DGCNN family, with points dropped: :class:`ObjectRecipe`
``dgcnn``      dgcnn.pytorch @ 07d534c: scale and shift alone
``none``       nothing is changed: :class:`NoRecipe`
=============  ================================================================================
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from pointzoo.errors import ConfigError, UnknownNameError


def _require(fine: bool, recipe: Recipe) -> None:
    if not fine:
        raise ConfigError(
            expected="positive lengths, shares from 0 to 1 and ranges (low, high)",
            got=repr(recipe),
            fix="Correct the setting.",
        )


@dataclass(frozen=True)
class SceneRecipe:
    """Pointcept's training recipe for scenes (configs/scannet/semseg-spunet-v1m1-4-ft.py).

    In this order: centre, drop points, rotate, scale, mirror, jitter, distort, change colours, keep
    one point per voxel, crop, shuffle.

    Attributes:
        dropout: Share of the points that is dropped.
        dropout_probability: With which a scene loses points.
        turn: Largest rotation about z, radians.
        tilt: Largest rotation about x and about y, radians.
        rotate_probability: Of each of the three rotations.
        scale: Range of the factor of the scene.
        flip: Probability of mirroring x, and of mirroring y.
        jitter_sigma: Standard deviation of the noise on every coordinate, metres.
        jitter_clip: Largest noise, metres.
        elastic: Pairs of cell and strength, metres, see :func:`pointzoo.augment.elastic`.
        elastic_probability: Of the distortion.
        auto_contrast: Probability that colours are blended, at random, with stretched ones.
        color_shift: Largest shift of each channel.
        color_shift_probability: Of the shift.
        color_noise: Standard deviation of the noise on every colour.
        color_noise_probability: Of the noise.
        grid_size: Edge of the voxels that keep one random point each, metres; None: all points.
        crop_points: The points nearest to a random one are kept, this many; None: all.
        crop_share: At most this share of the points is kept, too.
        shuffle: Whether the points come in random order.
        keep_labelled: Whether labelled points are neither dropped nor thinned out, as Pointcept
            does where few points have a label.
    """

    dropout: float = 0.2
    dropout_probability: float = 0.2
    turn: float = math.pi
    tilt: float = math.pi / 64
    rotate_probability: float = 0.5
    scale: tuple[float, float] = (0.9, 1.1)
    flip: float = 0.5
    jitter_sigma: float = 0.005
    jitter_clip: float = 0.02
    elastic: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    elastic_probability: float = 0.95
    auto_contrast: float = 0.2
    color_shift: float = 0.05
    color_shift_probability: float = 0.95
    color_noise: float = 0.05
    color_noise_probability: float = 0.95
    grid_size: float | None = 0.02
    crop_points: int | None = 100_000
    crop_share: float = 1.0
    shuffle: bool = True
    keep_labelled: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A number is out of range.
        """
        shares = [getattr(self, f.name) for f in dataclasses.fields(self) if "prob" in f.name]
        shares += [self.flip, self.auto_contrast, self.color_shift, self.dropout]
        sizes = (self.scale[0], self.crop_share, self.grid_size, self.crop_points)
        lengths = [value for value in (*sizes, *sum(self.elastic, ())) if value is not None]
        fine = min(shares) >= 0.0 and max(shares) <= 1.0 and self.dropout < 1.0
        noise = min(self.jitter_sigma, self.jitter_clip, self.color_noise)
        _require(fine and min(lengths) > 0 and self.crop_share <= 1.0 and noise >= 0.0, self)
        _require(self.scale[0] <= self.scale[1] and all(len(e) == 2 for e in self.elastic), self)


@dataclass(frozen=True)
class SceneChanges:
    """Random changes of a training scene on few steps.

    Attributes:
        turn: Largest rotation about z, radians.
        flip: Probability of mirroring x, and of mirroring y.
        scale: Range of the factor of the scene.
        jitter: Standard deviation of the noise on every coordinate, clipped at three of them.
        brightness: Largest change of colours by addition.
        contrast: Largest change of colours by a factor around 1.
        color_noise: Standard deviation of the noise on every colour.
    """

    turn: float = math.pi
    flip: float = 0.5
    scale: tuple[float, float] = (0.9, 1.1)
    jitter: float = 0.005
    brightness: float = 0.1
    contrast: float = 0.2
    color_noise: float = 0.02


@dataclass(frozen=True)
class ObjectRecipe:
    """Random changes of a shape in a frame of about unit size.

    Attributes:
        dropout: Largest share of the points that is dropped; the share itself is drawn, too.
        turn: Largest rotation about z, radians.
        jitter_sigma: Standard deviation of the noise on every coordinate.
        jitter_clip: Largest noise.
        scale: Range of the factor of each axis.
        shift: Largest shift along each axis.
    """

    dropout: float = 0.2
    turn: float = 0.0
    jitter_sigma: float = 0.01
    jitter_clip: float = 0.05
    scale: tuple[float, float] = (2 / 3, 3 / 2)
    shift: float = 0.2

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A number is out of range.
        """
        low, high = self.scale
        smallest = min(self.dropout, self.turn, self.jitter_sigma, self.jitter_clip, self.shift)
        _require(0.0 < low <= high and smallest >= 0.0 and self.dropout < 1.0, self)


@dataclass(frozen=True)
class NoRecipe:
    """Nothing is changed."""


Recipe: TypeAlias = "SceneRecipe | SceneChanges | ObjectRecipe | NoRecipe"

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "scannet": SceneRecipe(),
        "few": SceneRecipe(keep_labelled=True),
        "s3dis": SceneRecipe(grid_size=0.05),
        "pointgroup": SceneRecipe(crop_points=None, crop_share=0.8, color_shift=0.1),
        "light": SceneChanges(),
        "object": ObjectRecipe(),
        "dgcnn": ObjectRecipe(dropout=0.0, jitter_sigma=0.0),
        "none": NoRecipe(),
    }
)
"""By name; see the top of the file."""

_KINDS: Mapping[str, type[Any]] = {
    "scene": SceneRecipe,
    "light": SceneChanges,
    "object": ObjectRecipe,
    "none": NoRecipe,
}


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in RECIPES:
        raise UnknownNameError.of("recipe", name, RECIPES)
    return RECIPES[name]


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as JSON types, with its ``kind``."""
    kind = next(name for name, cls in _KINDS.items() if type(recipe) is cls)
    return {"kind": kind, **_listed(dataclasses.asdict(recipe))}


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Rebuild a recipe from what :func:`recipe_to_dict` returned.

    Raises:
        ConfigError: The kind or a key is unknown, or a value is out of range.
    """
    kind = values.get("kind")
    if kind not in _KINDS:
        raise ConfigError(
            expected=f"a recipe of the kinds {', '.join(_KINDS)}",
            got=repr(kind),
            fix="Write recipes with recipe_to_dict.",
        )
    own = {key: _tupled(value) for key, value in values.items() if key != "kind"}
    try:
        recipe: Recipe = _KINDS[str(kind)](**own)
    except (TypeError, IndexError) as error:
        raise ConfigError(
            expected=f"settings of {_KINDS[str(kind)].__name__}",
            got=f"{sorted(own)}: {error}",
            fix="Leave out what it does not have.",
        ) from error
    return recipe


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return list(map(_listed, value)) if isinstance(value, tuple) else value
