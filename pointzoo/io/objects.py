"""Point clouds that other libraries hold in memory, told by the name of their class's module.

No library is imported for it: whoever passes such an object has imported it already.

=================  =============================================================================
of                 what is read
=================  =============================================================================
Open3D             ``PointCloud``, ``TriangleMesh``, legacy and tensor based
PyVista            the points of any data set, the surface of a ``PolyData`` with faces
trimesh            ``PointCloud``, ``Trimesh``, ``Scene``
PyTorch Geometric  ``Data``: ``pos``, ``color`` or ``rgb``, ``normal``/``normals``/``norm``, ``y``
Pointcept          dictionaries: ``coord``, ``color``, ``normal``, ``segment``, ``instance``
=================  =============================================================================

From meshes points are drawn as from files of meshes. What has no fixed meaning there is not read:
PyTorch Geometric's ``x``, Pointcept's ``feat``.

Shape legend: N points, V vertices, T triangles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.errors import CloudError
from pointzoo.io.mesh import MESH_POINTS, draw_from_scene
from pointzoo.io.raw import RawCloud, full_scale_of
from pointzoo.io.surface import sample_surface


def from_object(value: Any, *, points: int = MESH_POINTS) -> RawCloud | None:
    """Return what an object of another library holds, or None if it is of none of these.

    Args:
        value: Any object.
        points: How many points to draw from a mesh.

    Raises:
        CloudError: It holds several clouds, or is a kind of object that has no points.
        FormatError: It is a mesh whose triangles have corners that do not exist.
    """
    if isinstance(value, Mapping) and "coord" in value:
        return _from_pointcept(value)
    for kind in type(value).__mro__:
        reader = _READERS.get(kind.__module__.partition(".")[0])
        if reader is not None:
            return reader(value, points)
    return None


def _from_open3d(value: Any, points: int) -> RawCloud:
    name = type(value).__name__
    if name == "PointCloud":
        values = value.point if hasattr(value, "point") else _legacy(value, "points")
        return RawCloud(
            _array(values["positions"]),
            colors=_named(values, "colors"),
            normals=_named(values, "normals"),
        )
    if name == "TriangleMesh":
        values = value.vertex if hasattr(value, "vertex") else _legacy(value, "vertices")
        corners = value.triangle["indices"] if hasattr(value, "triangle") else value.triangles
        colors = _named(values, "colors")
        return _from_triangles(_array(values["positions"]), _array(corners), colors, points)
    raise _not_a_cloud(value, "a PointCloud or a TriangleMesh of Open3D")


def _legacy(value: Any, positions: str) -> dict[str, Any]:
    """Name the arrays of a legacy object as tensor-based ones are; empty ones are left out."""
    prefix = "" if positions == "points" else "vertex_"
    found = {key: np.asarray(getattr(value, prefix + key)) for key in ("colors", "normals")}
    kept = {key: array for key, array in found.items() if len(array)}
    return {"positions": np.asarray(getattr(value, positions)), **kept}


def _from_pyvista(value: Any, points: int) -> RawCloud:
    if not hasattr(value, "points") or not hasattr(value, "point_data"):
        raise _not_a_cloud(value, "a data set of PyVista with points")
    coords = _array(value.points)
    names = {str(name).lower(): name for name in value.point_data.keys()}  # noqa: SIM118
    found = {
        part: _array(value.point_data[names[key]])
        for part, keys in (("colors", ("rgb", "rgba", "colors")), ("normals", ("normals",)))
        for key in keys
        if key in names
    }
    colors = found["colors"][:, :3] if "colors" in found else None
    if np.size(getattr(value, "faces", ())):
        faces = _array(value.triangulate().faces).reshape(-1, 4)[:, 1:]
        return _from_triangles(coords, faces, colors, points)
    return RawCloud(coords, colors=colors, normals=found.get("normals"))


def _from_trimesh(value: Any, points: int) -> RawCloud:
    if hasattr(value, "graph"):
        return draw_from_scene(value, points)
    if not hasattr(value, "vertices"):
        raise _not_a_cloud(value, "a PointCloud, a Trimesh or a Scene of trimesh")
    return draw_from_scene(value.scene(), points)


def _from_pyg(value: Any, _: int) -> RawCloud:
    pos = getattr(value, "pos", None)
    if pos is None:
        raise _not_a_cloud(value, "a Data of PyTorch Geometric with pos")
    batch = getattr(value, "batch", None)
    if batch is not None and len(batch) and int(batch.min()) != int(batch.max()):
        raise CloudError(
            expected="one cloud", got="a Batch of several", fix="Pass batch.to_data_list()."
        )
    coords = _array(pos)
    labels = getattr(value, "y", None)
    per_point = labels is not None and np.shape(labels) in ((len(coords),), (len(coords), 1))
    return RawCloud(
        coords,
        colors=_first(value, "color", "rgb"),
        normals=_first(value, "normal", "normals", "norm"),
        labels=_array(labels).reshape(-1) if per_point else None,
    )


def _first(value: Any, *names: str) -> NDArray[Any] | None:
    for name in names:
        found = getattr(value, name, None)
        if found is not None:
            return _array(found)
    return None


def _from_pointcept(values: Mapping[str, Any]) -> RawCloud:
    offset = values.get("offset")
    if offset is not None and np.size(_array(offset)) > 1:
        raise CloudError(
            expected="one cloud",
            got=f"a dictionary of {np.size(_array(offset))}",
            fix="Cut it at its offsets and pass a list, or call encoder.forward_voxels.",
        )
    coords = _array(values["coord"])
    colors = _named(values, "color")
    full_scale = None
    if colors is not None and colors.dtype.kind == "f" and colors.size:
        if -1.0 <= colors.min() < 0.0 and colors.max() <= 1.0:  # NormalizeColor: c / 127.5 - 1
            colors = (colors + 1.0) / 2.0
        full_scale = 255.0 if colors.max() > 1.0 else 1.0
    fields = {"instance": _array(values["instance"])} if "instance" in values else {}
    return RawCloud(
        coords,
        colors=colors,
        normals=_named(values, "normal"),
        labels=_named(values, "segment"),
        fields=fields,
        full_scale=full_scale,
    )


def _from_triangles(
    vertices: NDArray[Any], faces: NDArray[Any], colors: NDArray[Any] | None, points: int
) -> RawCloud:
    """Draw points from triangles (T, 3) of vertices (V, 3), blending the colours of corners."""
    if len(faces) == 0:
        return RawCloud(vertices, colors=colors)
    corners = np.ascontiguousarray(vertices[faces], dtype=np.float64)
    seed = int.from_bytes(hashlib.sha256(corners.tobytes()).digest()[:8], "little")
    sample = sample_surface(corners, points, np.random.default_rng(seed))
    if colors is not None:
        shares = colors.astype(np.float64) / full_scale_of(colors)
        colors = np.einsum("nk,nkc->nc", sample.weights, shares[faces[sample.triangle]])
    return RawCloud(sample.coords, colors=colors, normals=sample.normals)


def _named(values: Any, name: str) -> NDArray[Any] | None:
    return _array(values[name]) if name in values else None


def _array(value: Any) -> NDArray[Any]:
    """Return an array, or a tensor of torch or Open3D on any device, as a NumPy array."""
    for step in ("detach", "cpu", "numpy"):
        value = getattr(value, step)() if hasattr(value, step) else value
    return np.asarray(value)


def _not_a_cloud(value: Any, expected: str) -> CloudError:
    return CloudError(
        expected=expected,
        got=f"a {type(value).__name__}",
        fix="Pass its points as an (N, 3) array.",
    )


_READERS: Mapping[str, Callable[[Any, int], RawCloud]] = {
    "open3d": _from_open3d,
    "pyvista": _from_pyvista,
    "torch_geometric": _from_pyg,
    "trimesh": _from_trimesh,
}
