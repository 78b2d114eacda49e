"""Reads scene data sets as their authors publish them, through the package scenezoo.

ScanNet (``scannetv2``), ARKitScenes (``arkitscenes``) and S3DIS (``s3dis``) are what is mapped
here; scenezoo checks the files and knows the splits. Shape legend: M scenes, P points of a scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.cloud import IntArray, PointCloud
from pointzoo.data.scene_classes import NYU40_OF_SCANNET20, S3DIS13, SCANNET20
from pointzoo.errors import ConfigError, MissingExtraError
from pointzoo.io.files import parsing

_CLASSES: dict[str, tuple[str, ...]] = {
    "scannetv2": SCANNET20,
    "arkitscenes": (),
    "s3dis": S3DIS13,
}


@dataclass(frozen=True, eq=False)
class OriginalScenes:
    """M scenes of a published data set; a :class:`~pointzoo.data.PointDataset`.

    Attributes:
        name: What scenezoo calls the data set.
        names: (M,) identifiers of the scenes.
        class_names: Names that the labels of the points index; empty where there are none.
    """

    name: str
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    _source: Any

    @property
    def labels(self) -> IntArray | None:
        """None: points have labels, scenes have none."""
        return None

    def __len__(self) -> int:
        """Return M, the number of scenes."""
        return len(self.names)

    def __getitem__(self, index: int) -> PointCloud:
        """Read scene ``index``: vertices of the scanned mesh, or the points of S3DIS.

        Normals are area-weighted means of the faces at a vertex (Pointcept's too).

        Raises:
            IndexError: There is no such scene.
            FileNotFoundError: A file of the scene is missing.
            FormatError: A file is damaged.
        """
        scene = self.names[index]
        with parsing(Path(scene), self.name):  # scenezoo has errors of its own
            if self.name == "s3dis":
                return _points(self._source, scene)
            return _vertices(self._source, scene, labelled=self.name == "scannetv2")


def read_original_scenes(name: str, path: Path, split: str | None = None) -> OriginalScenes:
    """Open a data set of scenes as its authors publish it.

    Args:
        name: ``"scannetv2"``, ``"arkitscenes"`` or ``"s3dis"``.
        path: Its folder.
        split: A split of the data set, None for all scenes.

    Raises:
        ConfigError: The data set or the split is none of these.
        MissingExtraError: scenezoo is not installed.
    """
    if name not in _CLASSES:
        raise ConfigError(
            expected=f"one of the data sets {', '.join(_CLASSES)}",
            got=f"{name!r}",
            fix="Other data sets: preprocess them with Pointcept, open them with open_dataset().",
        )
    try:
        import scenezoo
    except ImportError as error:
        raise MissingExtraError("scenezoo", "scenezoo") from error
    source = scenezoo.get_dataset(name, path)
    try:
        scenes = source.get_ids(split)
    except KeyError as error:
        raise ConfigError(
            expected=f"a split of {name}", got=f"{split!r}", fix=str(error.args[0])
        ) from error
    return OriginalScenes(name, tuple(scenes), _CLASSES[name], source)


def _points(source: Any, scene: str) -> PointCloud:
    data = source.get_points(scene)
    return PointCloud(
        coords=data.xyz,
        colors=np.asarray(data.rgb).astype(np.uint8),
        labels=np.asarray(data.semantic_labels).astype(np.int64),
        fields={"instance": np.asarray(data.instance_labels)},
    )


def _vertices(source: Any, scene: str, *, labelled: bool) -> PointCloud:
    mesh = source.get_mesh(scene)
    coords = np.asarray(mesh.vertices, dtype=np.float64)
    colors = np.asarray(mesh.vertex_colors, dtype=np.float64)
    faces = np.asarray(mesh.triangles, dtype=np.int64)
    labels, fields = _annotations(source, scene, len(coords)) if labelled else (None, {})
    return PointCloud(
        coords=coords,
        colors=colors if len(colors) == len(coords) else None,
        normals=vertex_normals(coords, faces),
        labels=labels,
        fields=fields,
    )


def _annotations(
    source: Any, scene: str, count: int
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Classes (V,) and objects of the vertices; the test scenes of ScanNet have none."""
    try:
        semantic = source.get_segmentation(scene, segmentation_type="semantic")
        objects = source.get_segmentation(scene, segmentation_type="instance")
    except FileNotFoundError:
        return np.full(count, -1, dtype=np.int64), {}
    return _scannet20(np.asarray(semantic.labels)), {"instance": np.asarray(objects.labels)}


def vertex_normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float32]:
    """Unit normals (V, 3): sums of the cross products of the faces (F, 3) at each vertex."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.stack(
        [
            np.bincount(faces.reshape(-1), np.repeat(cross[:, k], 3), minlength=len(vertices))
            for k in range(3)
        ],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    normals: NDArray[np.float32] = (total / np.maximum(length, 1e-12)).astype(np.float32)
    return normals


def _scannet20(nyu40: NDArray[Any]) -> NDArray[np.int64]:
    table = np.full(256, -1, dtype=np.int64)
    table[list(NYU40_OF_SCANNET20)] = np.arange(len(SCANNET20))
    return table[np.clip(nyu40.astype(np.int64), 0, 255)]
