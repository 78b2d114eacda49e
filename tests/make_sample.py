"""Makes the bundled sample: a wooden chair with a red cushion, in metres, z up.

Run ``python tests/make_sample.py`` to write it again; test_zoo compares the two. The fingerprint of
every weight is computed on it, so a change of the sample makes every fingerprint stale.
"""

from pathlib import Path

import numpy as np

SAMPLE = Path(__file__).parents[1] / "pointzoo" / "assets" / "sample.npy"
WOOD, CUSHION = (0.55, 0.36, 0.2), (0.72, 0.13, 0.12)
BOXES = (  # low corner, high corner, colour
    ((-0.22, -0.22, 0.42), (0.22, 0.22, 0.46), WOOD),  # seat
    ((-0.2, -0.2, 0.46), (0.2, 0.2, 0.5), CUSHION),
    ((-0.22, -0.22, 0.0), (-0.18, -0.18, 0.42), WOOD),  # front legs
    ((0.18, -0.22, 0.0), (0.22, -0.18, 0.42), WOOD),
    ((-0.22, 0.18, 0.0), (-0.18, 0.22, 0.95), WOOD),  # back legs and posts
    ((0.18, 0.18, 0.0), (0.22, 0.22, 0.95), WOOD),
    ((-0.18, 0.19, 0.62), (0.18, 0.21, 0.7), WOOD),  # slats
    ((-0.18, 0.19, 0.8), (0.18, 0.21, 0.93), WOOD),
)


def make_sample(points: int = 1024) -> np.ndarray:
    """Return (points, 9) float32: x, y, z, r, g, b, nx, ny, nz."""
    rng = np.random.default_rng(2022)
    faces = [
        (np.array(low), np.array(high), axis, side, colour)
        for low, high, colour in BOXES
        for axis in range(3)
        for side in (0, 1)
    ]
    areas = np.array([np.prod(np.delete(high - low, axis)) for low, high, axis, _, _ in faces])
    rows = []
    for face in rng.choice(len(faces), size=points, p=areas / areas.sum()):
        low, high, axis, side, colour = faces[face]
        xyz = rng.uniform(low, high)
        xyz[axis] = (low, high)[side][axis]
        normal = np.zeros(3)
        normal[axis] = 2 * side - 1
        rgb = np.clip(np.array(colour) + rng.normal(0.0, 0.03), 0.0, 1.0)
        rows.append(np.concatenate([xyz + rng.normal(0.0, 0.001, 3), rgb, normal]))
    return np.array(rows, np.float32)


if __name__ == "__main__":
    np.save(SAMPLE, make_sample())
