"""Go on pretraining on clouds of one's own, in one call."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from pointzoo.data.base import PointDataset
from pointzoo.encoders.base import PointEncoder
from pointzoo.encoders.registry import ARCHITECTURES
from pointzoo.errors import ConfigError
from pointzoo.pretrain.sources import open_training
from pointzoo.settings import override
from pointzoo.zoo import load_encoder

if TYPE_CHECKING:
    from pointzoo.pretrain.msc import MSCConfig

Trainer = Literal["auto", "msc", "dcglr"]
PathLike: TypeAlias = str | os.PathLike[str]


def adapt(
    encoder: PointEncoder | PathLike,
    data: PointDataset | PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    trainer: Trainer = "auto",
    steps: int = 300,
    seed: int = 0,
    resume: bool = False,
    **settings: Any,
) -> PointEncoder:
    """Go on pretraining an encoder on unlabelled clouds, so that its features fit them better.

    The settings are those of the preset ``cpu`` for ``steps`` steps; batches are no larger than the
    data set, and the lengths of MSC that are measured in voxels follow the encoder's. Whether it
    helped is for a probe to say, before and after.

    Args:
        encoder: The encoder to start from, or its name or folder; it is left as it is.
        data: A data set, the folder of one, or several folders; labels are not looked at. A folder
            with the parts train and test is read without the test part.
        out: Folder of the run: checkpoint, log, and ``weights``, a weight folder at any time.
        trainer: ``msc`` for scenes, which needs an encoder of voxels; ``dcglr`` for objects;
            ``auto``: ``msc`` where the encoder can.
        steps: Length of the run.
        seed: Of everything random.
        resume: Go on from the checkpoint in ``out``.
        settings: Any others of :class:`~pointzoo.pretrain.msc.MSCConfig` or
            :class:`~pointzoo.pretrain.dcglr.DCGLRConfig`, such as ``learning_rate``. Of the latter
            ``projector_norm`` is on unless the encoder has a class token.

    Returns:
        The adapted encoder, on the CPU in evaluation mode, as it lies in ``out/weights``.

    Raises:
        ConfigError: The trainer is unknown or the encoder does not fit it, a setting is out of
            range, the data set is empty, or ``out`` holds another run.
        UnknownNameError: There is no such encoder or setting.
        CollapseError: The representation collapsed.
    """
    from pointzoo.pretrain import dcglr, msc  # with accelerate, which takes a second to import

    if trainer not in ("auto", "msc", "dcglr"):
        raise ConfigError(
            expected="trainer 'auto', 'msc' or 'dcglr'", got=repr(trainer), fix="Choose one."
        )
    start = copy.deepcopy(encoder) if isinstance(encoder, PointEncoder) else load_encoder(encoder)
    if type(start) not in {entry.encoder_class for entry in ARCHITECTURES.values()}:
        raise ConfigError(
            expected="an encoder of a registered architecture, whose weights can be stored",
            got=type(start).__name__,
            fix="Train it with pointzoo.pretrain, and keep its checkpoint.",
        )
    clouds = _opened(data)
    fitting = {"max_steps": steps, "seed": seed}
    voxels = hasattr(start, "forward_voxels")
    if trainer == "msc" or (trainer == "auto" and voxels):
        scenes = msc.PRESETS["cpu"]
        fitting["batch_size"] = max(1, min(scenes.batch_size, len(clouds)))
        config = override(scenes, {**fitting, **_lengths(start, scenes), **settings})
        run = msc.run(config, clouds, Path(out), encoder=start, resume=resume)
    else:
        objects = dcglr.PRESETS["cpu"]
        fitting["batch_size"] = max(1, min(objects.batch_size, len(clouds)))
        # without a class token the scene feature is pooled: docs/decisions/0016
        fitting["projector_norm"] = not start.capabilities.class_attention
        run = dcglr.run(
            override(objects, {**fitting, **settings}),
            clouds, Path(out), encoder=start, resume=resume,
        )  # fmt: skip
    assert run.weights is not None
    return load_encoder(run.weights)


def _opened(data: PointDataset | PathLike | Sequence[PathLike]) -> PointDataset:
    if isinstance(data, str | os.PathLike):
        return open_training([Path(data)])
    if isinstance(data, list | tuple):
        return open_training([Path(path) for path in data])
    return cast(PointDataset, data)


def _lengths(encoder: PointEncoder, preset: MSCConfig) -> dict[str, float]:
    """Return the lengths that are as many voxels as the preset's."""
    factor = getattr(encoder, "grid_size", preset.views.grid_size) / preset.views.grid_size
    return {
        "views.grid_size": preset.views.grid_size * factor,
        "mask_size": preset.mask_size * factor,
        "match_radius": preset.match_radius * factor,
    }
