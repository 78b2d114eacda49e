"""Checks of the forward pass in evaluation."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pointzoo.batch import PointBatch
from pointzoo.cloud import PointCloud
from pointzoo.encoders.base import EncoderOutput, PointEncoder
from pointzoo.testing.support import (
    SIZES,
    Make,
    conformance,
    encode,
    encode_cloud,
    features_of,
    make_batch,
    make_cloud,
    make_clouds,
    points_of,
    rebuild,
    require,
    require_close,
    require_identical,
)


@conformance
def check_output_shapes(make: Make) -> None:
    """Give one row per input point and one per cloud, with the declared channels."""
    encoder = make()
    batch = make_batch(encoder)
    _require_shapes(encoder, batch, encode(encoder, batch))


@conformance
def check_dtype_kept(make: Make) -> None:
    """Compute in the number type of the weights and of the batch, and return it."""
    encoder = make()
    batch = make_batch(encoder)
    single, double = encode(encoder, batch), encode(encoder.double(), batch.to(dtype=torch.float64))
    for output, dtype in ((single, torch.float32), (double, torch.float64)):
        got = {name: str(value.dtype) for name, value in features_of(output).items()}
        require(
            set(got.values()) == {str(dtype)},
            expected=f"{dtype} from {dtype}",
            got=str(got),
            fix="Convert nothing on the way; create tensors with x.new_zeros and the like.",
        )
    for name, value in features_of(double).items():
        _require_same(features_of(single)[name].double(), value, f"{name} of the float64 encoder")


@conformance
def check_degenerate_clouds(make: Make) -> None:
    """Give finite rows for one point, for points in one place, on a line, and for duplicates."""
    encoder = make()
    some = make_cloud(12).coords
    clouds = {
        "one point": some[:1],
        "two points": some[:2],
        "seven times one point": some[[3] * 7],
        "points on a line": np.linspace(some[0], some[1], 30),
        "a tiny cluster": some[0] + 1e-9 * some,
        "every point twice": np.concatenate([some, some]),
    }
    for name, coords in clouds.items():
        batch = make_batch(encoder, [PointCloud(coords)])
        output = encode(encoder, batch)
        _require_shapes(encoder, batch, output, of=name)
    rows = points_of(output)  # of the last cloud
    _require_same(rows[:12], rows[12:], "rows of points that coincide")


@conformance
def check_scene_alone(make: Make) -> None:
    """Skip the point features, and nothing else, with points=False."""
    encoder = make()
    batch = make_batch(encoder)
    full, short = encode(encoder, batch), encode(encoder, batch, points=False)
    require(
        short.point is None,
        expected="point None with points=False",
        got="point features",
        fix="Return them only where they are asked for.",
    )
    _require_same(short.scene, full.scene, "scene features with points=False")


@conformance
def check_alone_equals_batch(make: Make) -> None:
    """Give a cloud the same features alone as in a batch of clouds of other sizes."""
    encoder = make()
    _require_alone_equals_batch(encoder, make_clouds(SIZES))
    _require_alone_equals_batch(encoder, make_clouds((24, 24)))


@conformance
def check_order_of_points(make: Make) -> None:
    """Permute the rows when the points are permuted, and change nothing else."""
    encoder = make()
    for points in (3, 65):
        cloud = make_cloud(points)
        order = np.random.default_rng(points).permutation(points)
        straight, shuffled = (
            encode_cloud(encoder, cloud),
            encode_cloud(encoder, cloud.select(order)),
        )
        _require_same(shuffled.scene, straight.scene, "scene feature of permuted points")
        rows = points_of(straight)[torch.from_numpy(order)]
        _require_same(points_of(shuffled), rows, "permuted rows for permuted points")


@conformance
def check_repeatable(make: Make) -> None:
    """Give the same bits twice, whatever the global random state, and leave that state alone."""
    encoder = make()
    batch = make_batch(encoder)
    torch.manual_seed(1)
    first = encode(encoder, batch)
    torch.manual_seed(2)
    before = _random_states()
    second = encode(encoder, batch)
    require(
        before == _random_states(),
        expected="no random number in evaluation",
        got="another state of a global generator",
        fix="Make every choice depend on the points.",
    )
    require_identical(
        second, first, what="the same output twice", fix="Find what is random in evaluation."
    )


@conformance
def check_inputs_untouched(make: Make) -> None:
    """Leave the batch, the encoder's state and its mode as they were."""
    encoder = make()
    batch = make_batch(encoder)
    kept, state = copy.deepcopy(batch), copy.deepcopy(encoder.state_dict())
    encode(encoder, batch)
    pairs = ((batch.coords, kept.coords), (batch.features, kept.features))
    require(
        all(torch.equal(a, b) for a, b in (*pairs, (batch.offsets, kept.offsets))),
        expected="an untouched batch",
        got="changed values",
        fix="Avoid in-place operations on what came in.",
    )
    changed = [name for name, value in encoder.state_dict().items() if not value.equal(state[name])]
    require(
        not changed and not encoder.training,
        expected="an untouched encoder in evaluation",
        got=f"changed {changed}, training {encoder.training}",
        fix="Update buffers in training only.",
    )


@conformance
def check_geometry_shared(make: Make) -> None:
    """Give the same bits from a geometry computed before, also by a twin with other weights."""
    encoder = make()
    batch = make_batch(encoder)
    geometry = encoder.geometry(batch)
    require_identical(
        encode(encoder, batch, geometry=geometry),
        encode(encoder, batch),
        what="the output of forward(batch) from forward(batch, geometry=geometry(batch))",
        fix="Compute the geometry in one place, and nothing of it in forward.",
    )
    torch.manual_seed(5)
    twin = rebuild(encoder)
    require_identical(
        encode(twin, batch, geometry=geometry),
        encode(twin, batch),
        what="the output of a twin with its own weights, from a shared geometry",
        fix="Let the geometry depend on the points alone.",
    )


@conformance
def check_large_clouds(make: Make) -> None:
    """Give a row for every point of a large cloud; one within max_points stays as it was."""
    encoder = make()
    declared = encoder.capabilities.subsamples
    require(
        hasattr(encoder.config, "max_points") == declared,
        expected=f"config.max_points {'there' if declared else 'not there'}, as declared",
        got=f"settings {sorted(encoder.config.to_dict())}",
        fix="Declare capabilities.subsamples if and only if the config has max_points.",
    )
    if not declared:
        batch = make_batch(encoder, clouds := make_clouds((10, 400, 17)))
        _require_shapes(encoder, batch, encode(encoder, batch), of="large clouds")
        _require_alone_equals_batch(encoder, clouds)
        return
    limited = rebuild(encoder, max_points=16)
    limited.load_state_dict(encoder.state_dict())
    clouds = make_clouds((10, 40, 17))
    clouds.append(PointCloud(clouds[0].coords[[0] * 20]))
    batch = make_batch(limited, clouds)
    _require_shapes(limited, batch, encode(limited, batch), of="clouds beyond max_points")
    _require_alone_equals_batch(limited, clouds)
    require_identical(
        encode_cloud(limited, clouds[0]),
        encode_cloud(encoder, clouds[0]),
        what="the output for a cloud within max_points",
        fix="Subsample only clouds that have more points.",
    )


def _require_shapes(
    encoder: PointEncoder, batch: PointBatch, output: EncoderOutput, of: str = "the batch"
) -> None:
    point = points_of(output)
    wanted = {
        "point": (len(batch.coords), encoder.out_channels),
        "scene": (batch.num_clouds, encoder.scene_channels),
    }
    got = {"point": tuple(point.shape), "scene": tuple(output.scene.shape)}
    require(
        got == wanted,
        expected=f"for {of} {wanted}",
        got=str(got),
        fix="Declare the widths that forward returns, and keep every point and every cloud.",
    )
    broken = [k for k, value in features_of(output).items() if not bool(value.isfinite().all())]
    require(
        not broken,
        expected=f"finite features for {of}",
        got=f"NaN or infinity in {broken}",
        fix="Guard divisions by a spread, a count or a distance that can be 0.",
    )


def _require_alone_equals_batch(encoder: PointEncoder, clouds: list[PointCloud]) -> None:
    ready = [encoder.preprocess(cloud) for cloud in clouds]
    # Each elsewhere, as the crops of a trainer are: preprocessing alone would hide a common centre.
    single = [PointBatch.collate([xyz + 0.2 * b], [extra]) for b, (xyz, extra) in enumerate(ready)]
    batch = PointBatch.collate([one.coords for one in single], [one.features for one in single])
    together = encode(encoder, batch)
    rows = batch.split(points_of(together))
    for b, one in enumerate(single):
        alone = encode(encoder, one)
        what = f"of a cloud of {len(one.coords)} points, alone as in a batch"
        _require_same(together.scene[b : b + 1], alone.scene, f"scene feature {what}")
        _require_same(rows[b], points_of(alone), f"point features {what}")


def _require_same(got: Tensor, expected: Tensor, what: str) -> None:
    fix = "Look for what the computation takes from the order, the batch or the number type."
    require_close(got, expected, what=what, fix=fix)


def _random_states() -> tuple[bytes, bytes, object]:
    readers: tuple[Callable[[], object], ...] = (np.random.get_state, random.getstate)
    legacy, python = (repr(read()).encode() for read in readers)
    return torch.get_rng_state().numpy().tobytes(), legacy, python
