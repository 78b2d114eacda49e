"""Checks of what an encoder reads: position, size, channels; and of what it refuses."""

from __future__ import annotations

import numpy as np
import torch

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import CHANNEL_FILL, PointEncoder
from pointzoo.errors import CheckFailedError, CloudError
from pointzoo.testing.support import (
    Make,
    conformance,
    encode,
    encode_cloud,
    make_batch,
    make_cloud,
    make_clouds,
    points_of,
    rebuild,
    require,
    require_close,
    require_identical,
)

FAR_AWAY = (4.0e5, -5.0e6, 300.0)
"""Metres; as large as projected coordinates (UTM) get."""


@conformance
def check_position_and_size(make: Make) -> None:
    """Forget where a cloud is, and how large it is only if the config says so."""
    encoder = make()
    cloud = make_cloud(40)
    moved = cloud.replace(coords=cloud.coords + FAR_AWAY)
    larger = cloud.replace(coords=cloud.coords * 4.0)
    for normalize, factor in (("unit_sphere", 1.0), ("center", 4.0)):
        one = rebuild(encoder, normalize=normalize)
        fix = f"Preprocess with normalize_coords(..., {normalize!r})."
        here, there = encode_cloud(one, cloud), encode_cloud(one, moved)
        require_close(there.scene, here.scene, what="scene feature of a moved cloud", fix=fix)
        require_close(points_of(there), points_of(here), what="rows of a moved cloud", fix=fix)
        seen, seen_larger = one.preprocess(cloud)[0], one.preprocess(larger)[0]
        what = f"coordinates times {factor:g} for a cloud times 4 with {normalize!r}"
        require_close(seen_larger, seen * factor, what=what, fix=fix)


@conformance
def check_channels(make: Make) -> None:
    """Read every declared channel, fill a missing one as declared, and read no other."""
    encoder = make()
    cloud = make_cloud(30)
    bare = PointCloud(cloud.coords)
    require_identical(
        encode_cloud(rebuild_seeded(encoder, ()), cloud),
        encode_cloud(rebuild_seeded(encoder, ()), bare),
        what="the same output with and without channels that are not declared",
        fix="Read config.channels only.",
    )
    rich = rebuild_seeded(encoder, tuple(CHANNEL_FILL))
    names = tuple(channel.name for channel in rich.channel_contract)
    values = 3 * len(CHANNEL_FILL) + (3 if encoder.capabilities.reads_coords else 0)
    require(
        names == ("coords", *CHANNEL_FILL) and rich.in_channels == values,
        expected=f"coords and the channels of the config in the channel contract, {values} values",
        got=f"{names}, in_channels {rich.in_channels}",
        fix="Leave channel_contract and in_channels as the base class has them.",
    )
    full = encode_cloud(rich, cloud)
    for name, fill in CHANNEL_FILL.items():
        missing = encode_cloud(rich, cloud.replace(**{name: None}))
        filled = cloud.replace(**{name: np.full((len(cloud), 3), fill)})
        require_identical(
            missing,
            encode_cloud(rich, filled),
            what=f"the same output without {name} as with {fill:g} everywhere",
            fix="Fill with the value of the channel contract.",
        )
        require(
            not torch.equal(missing.scene, full.scene),
            expected=f"features that depend on {name}",
            got="the same without",
            fix="Feed batch.features to the network.",
        )


@conformance
def check_extract(make: Make) -> None:
    """Extract from a cloud what forward gives, in input order, and from a list a list."""
    encoder = make()
    clouds = make_clouds((9, 33))
    both = encoder.extract(clouds)
    for cloud, found in zip(clouds, both, strict=True):
        single = encoder.extract(cloud)
        direct = encode_cloud(encoder, cloud)
        for what, rows in (("alone", single.point), ("from a list", found.point)):
            require_close(
                torch.from_numpy(rows),
                points_of(direct),
                what=f"rows of a cloud, {what}, in input order",
                fix="Keep the order of the points in preprocess.",
            )
    turned = encoder.extract(clouds[0].select(np.arange(len(clouds[0]))[::-1]))
    require_close(
        torch.from_numpy(turned.point[::-1].copy()),
        torch.from_numpy(both[0].point),
        what="reversed rows for reversed points",
        fix="Keep the order of the points in preprocess.",
    )
    encoder.train()
    require_close(
        torch.from_numpy(encoder.extract(clouds[0]).scene),
        torch.from_numpy(both[0].scene),
        what="extract from an encoder in training",
        fix="Let the mode of the modules decide, not a flag of your own.",
    )
    require(
        encoder.training,
        expected="the mode as before extract",
        got="evaluation",
        fix="Leave extract as the base class has it.",
    )


@conformance
def check_refuses_unusable_clouds(make: Make) -> None:
    """Refuse an empty cloud, NaN and infinity with a CloudError."""
    encoder = make()
    cloud = make_cloud(5)
    for name, value in (("NaN", np.nan), ("infinite", np.inf)):
        coords = cloud.coords.copy()
        coords[2, 1] = value
        _require_refused(encoder, PointCloud(coords), f"{name} coordinates")
    _require_refused(encoder, PointCloud(np.zeros((0, 3))), "an empty cloud")
    reader = rebuild_seeded(encoder, ("normals",))
    normals = np.full((5, 3), np.nan)
    _require_refused(reader, cloud.replace(normals=normals), "NaN in a declared channel")


@conformance
def check_refuses_other_channels(make: Make) -> None:
    """Refuse a batch with other channels than declared with a CloudError."""
    encoder = make()
    batch = make_batch(encoder)
    wider = PointBatch(
        batch.coords, torch.cat([batch.features, batch.coords], dim=1), batch.offsets
    )
    _require_refused(encoder, wider, "a batch with three channels too many")
    rich = rebuild_seeded(encoder, ("colors",))
    bare = PointBatch(batch.coords, batch.features[:, :0], batch.offsets)
    _require_refused(rich, bare, "a batch without the channels")


@conformance
def check_refuses_other_device(make: Make) -> None:
    """Refuse a batch on another device with a CloudError."""
    encoder = make()
    batch = make_batch(encoder)
    encoder = encoder.to("meta")  # a device that every machine has
    _require_refused(encoder, batch, "a batch on another device than the encoder")


def rebuild_seeded(encoder: PointEncoder, channels: tuple[str, ...]) -> PointEncoder:
    """Rebuild with other channels, with the same weights at every call."""
    torch.manual_seed(3)
    return rebuild(encoder, channels=channels)


def _require_refused(encoder: PointEncoder, given: PointCloud | PointBatch, what: str) -> None:
    expected = f"a CloudError for {what}"
    fix = "Call check_channels first thing in forward, and require_usable in preprocess."
    try:
        if isinstance(given, PointCloud):
            encoder.preprocess(given)
        else:
            encode(encoder, given)
    except CloudError as error:
        parts = (error.expected, error.got, error.fix)
        require(
            all(parts),
            expected="an error that says what was expected, what came and what to do",
            got=repr(parts),
            fix="Fill all three parts.",
        )
        return
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise CheckFailedError(expected=expected, got=got, fix=fix) from error
    raise CheckFailedError(expected=expected, got="no error", fix=fix)
