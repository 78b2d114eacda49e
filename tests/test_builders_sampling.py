"""Points on meshes: on the surface, by area, repeatable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pointzoo.data.builders.sampling import named_generator
from pointzoo.errors import CloudError
from pointzoo.io.surface import sample_surface

# A triangle of area 2 in the plane z = 1, one of area 1 in the plane z = 2, wound the other way.
TRIANGLES = np.array(
    [[[0, 0, 1], [2, 0, 1], [0, 2, 1]], [[0, 0, 2], [0, 2, 2], [1, 0, 2]]], dtype=np.float64
)


def test_points_lie_on_their_triangle_in_proportion_to_area():
    sample = sample_surface(TRIANGLES, 6000, np.random.default_rng(0))
    rebuilt = np.einsum("nk,nkc->nc", sample.weights, TRIANGLES[sample.triangle])
    np.testing.assert_allclose(sample.coords, rebuilt, atol=1e-12)
    assert sample.weights.min() >= 0
    np.testing.assert_allclose(sample.weights.sum(axis=1), 1)
    # 6000 draws with probability 2/3: one standard deviation is 0.006.
    assert (sample.triangle == 0).mean() == pytest.approx(2 / 3, abs=0.03)
    np.testing.assert_allclose(
        sample.coords[sample.triangle == 0].mean(axis=0), [2 / 3, 2 / 3, 1], atol=0.05
    )


def test_normals_follow_the_winding():
    sample = sample_surface(TRIANGLES, 100, np.random.default_rng(0))
    expected = np.where(sample.triangle == 0, 1.0, -1.0)
    np.testing.assert_allclose(sample.normals[:, 2], expected)


def test_triangles_without_area_are_never_chosen():
    flat = np.zeros((1, 3, 3))
    broken = np.full((1, 3, 3), np.nan)
    mesh = np.concatenate([flat, broken, TRIANGLES, flat])
    sample = sample_surface(mesh, 500, np.random.default_rng(1))
    assert set(sample.triangle.tolist()) == {2, 3}
    assert np.isfinite(sample.coords).all()


@pytest.mark.parametrize(
    "mesh", [np.zeros((0, 3, 3)), np.zeros((4, 3, 3)), np.full((1, 3, 3), np.nan)]
)
def test_a_mesh_without_surface_is_a_typed_error(mesh):
    with pytest.raises(CloudError, match="area"):
        sample_surface(mesh, 10, np.random.default_rng(0))


def test_the_generator_depends_on_the_name_alone():
    first, again, other = (named_generator(n).random(4) for n in ("a", "a", "b"))
    assert first.tolist() == again.tolist() != other.tolist()


@given(hnp.arrays(np.float64, (5, 3, 3), elements=st.floats(-1e6, 1e6)))
def test_any_finite_mesh_gives_points_inside_its_box_or_a_typed_error(mesh):
    try:
        sample = sample_surface(mesh, 32, np.random.default_rng(0))
    except CloudError:
        return
    slack = 1e-9 * (1 + np.abs(mesh).max())
    assert (sample.coords >= mesh.min(axis=(0, 1)) - slack).all()
    assert (sample.coords <= mesh.max(axis=(0, 1)) + slack).all()
    np.testing.assert_allclose(np.linalg.norm(sample.normals, axis=1), 1, atol=1e-6)
