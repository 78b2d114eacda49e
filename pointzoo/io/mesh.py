"""Meshes (OFF, OBJ, STL, GLB) through trimesh (extra ``mesh``): points drawn from their surface.

Points are drawn uniformly by area; the generator starts from the file's own bytes, so that a file
always gives the same points. Each has the normal of its triangle and, where the mesh has any, its
colour: of the texture, the corners, the triangle or the material. A mesh without triangles gives
its vertices. Coordinates stay in the frame of the file: nothing turns the y-up of GLB to z-up.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointzoo.errors import MissingExtraError
from pointzoo.io.files import malformed, parsing, quiet
from pointzoo.io.raw import RawCloud, unit_colors
from pointzoo.io.siblings import Siblings, require_small
from pointzoo.io.surface import SurfaceSample, sample_surface

MESH_POINTS = 10_000
"""Points that are drawn from a mesh unless the caller says otherwise; ModelNet40's number."""
_MOST_TRIANGLES = 50_000_000  # a small GLB can repeat one mesh without end
_GREY = 102 / 255
"""What trimesh gives a surface without colour."""


@dataclass(frozen=True, eq=False)
class _Part:
    mesh: Any  # trimesh.Trimesh or trimesh.PointCloud
    vertices: NDArray[np.float64]  # (V, 3) in the frame of the scene
    faces: NDArray[np.int64]  # (T, 3)


def read_mesh(path: Path, points: int) -> RawCloud:
    """Draw points from the surface of a mesh.

    Args:
        path: The file.
        points: How many to draw.

    Raises:
        FormatError: The file is damaged, cut off or empty.
        CloudError: All triangles are without area.
        MissingExtraError: trimesh is not installed.
    """
    try:
        import trimesh
    except ImportError as error:
        raise MissingExtraError("trimesh", "mesh") from error
    quiet("trimesh")
    kind = path.suffix[1:].upper()
    with parsing(path, kind), np.errstate(all="ignore"):
        data = path.read_bytes()
        corner_colors = _check_off(path, data) if kind == "OFF" else None
        scene = trimesh.load_scene(
            io.BytesIO(data),
            file_type=kind.lower(),
            resolver=Siblings(path.parent),
            process=False,
        )
        return _draw(list(_parts(path, scene)), points, path, data, corner_colors)


def draw_from_scene(scene: Any, points: int) -> RawCloud:
    """Draw points from the surface of a ``trimesh.Scene``; the same scene gives the same points.

    Args:
        scene: Anything that holds geometry in a graph, as trimesh's scenes do.
        points: How many to draw.

    Raises:
        FormatError: There is no vertex in it, or a triangle has a corner that does not exist.
        CloudError: All triangles are without area.
    """
    name = Path(type(scene).__name__)
    with np.errstate(all="ignore"):
        parts = list(_parts(name, scene))
        return _draw(parts, points, name, b"".join(part.vertices.tobytes() for part in parts))


def _draw(
    parts: list[_Part],
    points: int,
    path: Path,
    seed: bytes,
    corner_colors: NDArray[np.float32] | None = None,
) -> RawCloud:
    count = sum(len(part.faces) for part in parts)
    if not any(len(part.vertices) for part in parts):
        raise malformed(path, "mesh", "there is no vertex in it")
    if count == 0:
        return _vertices(parts)
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(seed).digest()[:8], "little"))
    triangles = np.concatenate([part.vertices[part.faces] for part in parts])
    sample = sample_surface(triangles, points, generator)
    colors = _colors(parts, sample, corner_colors)
    note = f"{points:,} points were drawn from {count:,} triangles."
    return RawCloud(sample.coords, colors=colors, normals=sample.normals, notes=(note,))


def _parts(path: Path, scene: Any) -> Iterator[_Part]:
    total = 0
    for node in sorted(scene.graph.nodes_geometry):
        transform, name = scene.graph[node]
        mesh = scene.geometry[name]
        faces = np.asarray(getattr(mesh, "faces", ()), dtype=np.int64).reshape(-1, 3)
        vertices = np.asarray(mesh.vertices, dtype=np.float64).reshape(-1, 3)
        if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
            raise malformed(path, "mesh", "a triangle has a corner that does not exist")
        total += len(faces)
        if total > _MOST_TRIANGLES:
            raise malformed(path, "mesh", f"more than {_MOST_TRIANGLES:,} triangles")
        yield _Part(mesh, vertices @ transform[:3, :3].T + transform[:3, 3], faces)


def _vertices(parts: list[_Part]) -> RawCloud:
    """The vertices of parts that have no triangle."""
    colors: list[Any] = [getattr(part.mesh, "colors", None) for part in parts]
    known = [
        c[:, :3]
        for c, p in zip(colors, parts, strict=True)
        if np.shape(c)[:1] == (len(p.vertices),)
    ]
    return RawCloud(
        np.concatenate([part.vertices for part in parts]),
        colors=np.concatenate(known) if len(known) == len(parts) else None,
        notes=("There are no triangles; these are the vertices.",),
    )


def _colors(
    parts: list[_Part], sample: SurfaceSample, corner_colors: NDArray[Any] | None
) -> NDArray[np.float32] | None:
    """(N, 3) in 0..1, None if no part has any."""
    colors = np.full(sample.coords.shape, _GREY)
    first = 0
    for part in parts:
        inside = (sample.triangle >= first) & (sample.triangle < first + len(part.faces))
        faces = sample.triangle[inside] - first
        first += len(part.faces)
        if corner_colors is not None and len(corner_colors) == len(part.vertices):
            corners = corner_colors[part.faces[faces]]
            colors[inside] = np.einsum("nk,nkc->nc", sample.weights[inside], corners)
        elif len(faces):
            colors[inside] = _part_colors(part, faces, sample.weights[inside])
    return None if np.allclose(colors, _GREY, atol=1e-6) else colors.clip(0, 1).astype(np.float32)


def _part_colors(
    part: _Part, faces: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[Any]:
    """(N, 3) in 0..1 at points inside triangles; grey where there is no colour."""
    visual = part.mesh.visual
    kind = getattr(visual, "kind", None)
    colors = np.full((len(faces), 3), _GREY)
    if kind == "vertex":
        corners = visual.vertex_colors[part.faces[faces]][..., :3] / 255  # (N, 3 corners, 3)
        colors = np.einsum("nk,nkc->nc", weights, corners)
    elif kind == "face":
        colors = visual.face_colors[faces][:, :3] / 255
    elif kind == "texture":
        colors = _material_colors(visual, part.faces[faces], weights)
    return colors


def _material_colors(
    visual: Any, corners: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[Any]:
    """Colours of a texture, in glTF times the base colour factor, or of the plain material."""
    from trimesh.visual.color import uv_to_interpolated_color
    from trimesh.visual.material import color_image

    material = visual.material
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    factor = np.asarray(material.main_color)[:3] / 255
    if image is None or visual.uv is None:
        return np.broadcast_to(factor, (len(corners), 3))
    require_small(image)
    if np.array_equal(np.asarray(image), np.asarray(color_image())):  # what stands for no texture
        return np.full((len(corners), 3), _GREY)
    uv = np.einsum("nk,nkc->nc", weights, np.nan_to_num(np.asarray(visual.uv)[corners]))
    colors = uv_to_interpolated_color(uv.clip(-1e6, 1e6), image)[:, :3] / 255
    has_factor = getattr(material, "baseColorFactor", None) is not None
    return colors * factor if has_factor else colors


def _check_off(path: Path, data: bytes) -> NDArray[np.float32] | None:
    """Check that an OFF file has the lines that its header promises; trimesh does not.

    Returns:
        The vertex colours (V, 3) of a COFF file, which trimesh leaves out.
    """
    lines = [line.partition("#")[0].strip() for line in data.decode("utf-8").splitlines()]
    lines = [line for line in lines if line]
    kind = "COFF" if lines[0].upper().startswith("COFF") else "OFF"
    counts, start = lines[0][len(kind) :].split(), 1  # ModelNet has files that start "OFF8 6 0"
    if not counts:
        counts, start = lines[1].split(), 2
    vertices, faces = int(counts[0]), int(counts[1])
    if min(vertices, faces) < 0 or vertices + faces > len(lines) - start:
        promised = f"{vertices} vertices and {faces} faces promised"
        raise malformed(path, "OFF", f"{promised}, {len(lines) - start} lines there")
    if kind == "OFF" or vertices == 0:
        return None
    rows = np.loadtxt(lines[start : start + vertices], usecols=(3, 4, 5), ndmin=2)
    return unit_colors(rows)
