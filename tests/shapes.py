"""Small labelled data sets of simple shapes, made on the spot."""

import numpy as np

from pointzoo.data.base import ArrayDataset

CLASSES = ("ball", "box", "cone", "ring")


def shape(kind, points, generator):
    """Return one noisy shape of random proportions, (points, 3)."""
    u, v = generator.uniform(0, 2 * np.pi, (2, points))
    if kind == "ball":
        normal = generator.normal(size=(points, 3))
        coords = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    elif kind == "box":
        coords = generator.uniform(-1, 1, (points, 3))
        axis = generator.integers(3, size=points)
        coords[np.arange(points), axis] = generator.choice([-1.0, 1.0], points)
    elif kind == "cone":
        height = 1 - np.sqrt(generator.uniform(0, 1, points))
        coords = np.stack([(1 - height) * np.cos(u), (1 - height) * np.sin(u), 2 * height], 1)
    else:
        coords = np.stack(
            [(1 + 0.3 * np.cos(v)) * np.cos(u), (1 + 0.3 * np.cos(v)) * np.sin(u), 0.3 * np.sin(v)],
            axis=1,
        )
    coords = coords * generator.uniform(0.7, 1.4, 3) + generator.normal(0, 0.02, (points, 3))
    return coords + generator.normal(0, 1, 3)


def shapes_dataset(per_class=8, points=128, seed=0, classes=CLASSES):
    """Return ``per_class`` clouds of every class, in turn."""
    generator = np.random.default_rng(seed)
    labels = np.tile(np.arange(len(classes)), per_class)
    coords = np.stack([shape(classes[label], points, generator) for label in labels])
    return ArrayDataset(
        "shapes", coords.astype(np.float32), labels=labels, class_names=tuple(classes)
    )
