"""Losses, masks, pairs and schedules of MSC against values computed by other code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pointzoo.errors import ConfigError
from pointzoo.pretrain import losses
from pointzoo.pretrain.masks import mix_offsets
from pointzoo.pretrain.schedules import one_cycle_schedule
from pointzoo.pretrain.views import cross_masks, match_points

GOLDEN = Path(__file__).parent / "golden"
# float64 leaves the order of sums; float32 has 24 bits, gradients are sums of 512 of them
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)]
)


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"msc_{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(value)) for key, value in file.items()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(value: Tensor, wanted: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(value.double(), wanted.double(), rtol=tolerance, atol=tolerance)


# Losses


@PRECISIONS
def test_info_nce_is_the_mean_of_eq_2(dtype, tolerance):
    stored = golden("infonce")
    query, key = (stored[name].to(dtype).requires_grad_() for name in ("query", "key"))
    loss = losses.info_nce(query, key, temperature=float(stored["tau"]))
    assert loss.dtype == dtype
    close(loss, stored["loss_mean"], tolerance)
    close(loss * len(query), stored["loss_sum"], tolerance)
    loss.backward()
    assert query.grad is not None
    assert key.grad is not None
    scale = 1.0 / stored["grad_query_of_mean"].abs().max()
    close(query.grad * scale, stored["grad_query_of_mean"] * scale, tolerance)
    close(key.grad * scale, stored["grad_key_of_mean"] * scale, tolerance)
    positive, negative = losses.pair_cosines(query, key)
    assert positive == pytest.approx(float(stored["pos_sim"]), abs=1e-6)
    assert negative == pytest.approx(float(stored["neg_sim_proper"]), abs=1e-6)


def test_info_nce_of_two_orthogonal_pairs():
    stored = golden("infonce_hand")
    loss = losses.info_nce(stored["query"], stored["key"], temperature=float(stored["tau"]))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2.5)), rel=1e-6)
    assert float(loss) == pytest.approx(float(stored["loss_mean"]), rel=1e-6)


@PRECISIONS
def test_the_colour_loss_is_eq_4(dtype, tolerance):
    stored = golden("color")
    query, key = (stored[f"pred_{v}"].to(dtype).requires_grad_() for v in ("query", "key"))
    loss = losses.masked_color_loss(*masked(stored, query, key, "target", dtype))
    close(loss, stored["loss"], tolerance)
    loss.backward()
    close(query.grad, stored["grad_pred_query"], tolerance)
    close(key.grad, stored["grad_pred_key"], tolerance)


@PRECISIONS
def test_the_normal_loss_is_eq_5_with_the_sign_that_learns(dtype, tolerance):
    stored = golden("normal")
    query, key = (stored[f"pred_{v}"].to(dtype).requires_grad_() for v in ("query", "key"))
    loss = losses.masked_normal_loss(*masked(stored, query, key, "normal", dtype))
    close(loss, stored["loss_one_minus_cos"], tolerance)
    close(1.0 - loss, stored["eq5_as_written"], tolerance)
    loss.backward()
    close(query.grad, stored["grad_of_one_minus_cos_query"], tolerance)
    close(key.grad, stored["grad_of_one_minus_cos_key"], tolerance)


def masked(
    stored: dict[str, Tensor], query: Tensor, key: Tensor, target: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    hidden = stored["mask_query"], stored["mask_key"]
    targets = [stored[f"{target}_{view}"].to(dtype) for view in ("query", "key")]
    return (
        torch.cat([query[hidden[0]], key[hidden[1]]]),
        torch.cat([targets[0][hidden[0]], targets[1][hidden[1]]]),
    )


def test_hardest_contrastive_pulls_pairs_and_pushes_the_hardest_negatives():
    query = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    same = losses.hardest_contrastive(query, query, -query, -query)
    assert float(same) == pytest.approx(0.0, abs=1e-12)
    near = query.flip(0)
    # distance sqrt(2) of the pairs costs 2 - 0.1; negatives at sqrt(2) are far enough
    assert float(losses.hardest_contrastive(query, near, query, near)) == pytest.approx(1.9)
    # negatives that coincide cost 1.4^2 (but for the root's floor)
    assert float(losses.hardest_contrastive(query, query, query, query)) == pytest.approx(
        (1.4 - 1e-7**0.5) ** 2
    )


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: losses.info_nce(a, b, temperature=0.4),
        lambda a, b: losses.hardest_contrastive(a, b, a, b),
        losses.masked_color_loss,
        losses.masked_normal_loss,
    ],
)
def test_without_a_row_a_loss_is_0_and_rows_must_fit(loss):
    empty = torch.zeros(0, 3, requires_grad=True)
    value = loss(empty, torch.zeros(0, 3))
    value.backward()
    assert float(value.detach()) == 0.0
    with pytest.raises(ConfigError, match="same shape"):
        loss(torch.zeros(2, 3), torch.zeros(3, 3))


def test_a_temperature_of_0_is_refused():
    with pytest.raises(ConfigError, match="positive temperature"):
        losses.info_nce(torch.ones(2, 3), torch.ones(2, 3), temperature=0.0)


# Masks and mixing


@PRECISIONS
def test_masks_are_whole_patches_that_the_views_do_not_share(dtype, tolerance):
    stored = golden("cross_mask")
    coords = [stored[f"view{v}_origin_coord"] for v in (1, 2)]
    if dtype == torch.float64:  # the stored cells were taken in float32: keep off their edges
        size = np.float32(stored["mask_grid_size"])
        cells = [torch.floor(c / torch.tensor(size)) for c in coords]
        coords = [(c.double() + 0.5) * float(stored["mask_grid_size"]) for c in cells]
    masks = cross_masks(
        coords[0], stored["view1_offset"], coords[1], stored["view2_offset"],
        grid_size=float(stored["mask_grid_size"]), rate=float(stored["mask_rate"]),
        generator=generator(),
    )  # fmt: skip
    patches = [stored[f"view{v}_patch_id"] for v in (1, 2)]
    assert int(torch.cat(patches).unique().numel()) == int(stored["patch_count"])
    hidden = [patch[mask].unique() for patch, mask in zip(patches, masks, strict=True)]
    for patch, mask, ids in zip(patches, masks, hidden, strict=True):
        assert torch.equal(mask, torch.isin(patch, ids))
        # a patch that only the other view occupies hides no point of this one
        assert 0.6 * 576 < len(ids) <= int(stored["masked_patches_per_view"])
    assert not torch.isin(hidden[0], hidden[1]).any()


def test_masks_hide_exactly_the_share_of_the_cells_even_where_coordinates_are_negative():
    grid = torch.arange(-10.0, 10.0)
    cells = torch.cartesian_prod(grid, grid, grid) + 0.5
    offsets = torch.tensor([4000, 8000])
    masks = cross_masks(
        cells, offsets, cells, offsets, grid_size=1.0, rate=0.3, generator=generator(1)
    )
    assert [int(mask.sum()) for mask in masks] == [2400, 2400]
    assert not (masks[0] & masks[1]).any()
    # the two clouds share coordinates, not patches
    twins = cross_masks(
        torch.cat([cells, cells]), torch.tensor([8000, 16000]), cells[:2], torch.tensor([1, 2]),
        grid_size=1.0, rate=0.5, generator=generator(2),
    )[0]  # fmt: skip
    assert not torch.equal(twins[:8000], twins[8000:])
    nothing = cross_masks(
        cells, offsets, cells, offsets, grid_size=1.0, rate=0.0, generator=generator()
    )
    assert not nothing[0].any()
    assert not nothing[1].any()


@pytest.mark.parametrize("changes", [{"rate": 0.6}, {"rate": -0.1}, {"grid_size": 0.0}])
def test_masks_out_of_range_are_refused(changes):
    one = torch.zeros(1, 3), torch.tensor([1])
    options = {"grid_size": 0.1, "rate": 0.3, **changes}
    with pytest.raises(ConfigError):
        cross_masks(*one, *one, **options, generator=generator())


def test_mixing_merges_pairs_of_clouds():
    stored = golden("view_mix")
    for clouds in range(1, 9):
        mixed = mix_offsets(stored[f"offset_B{clouds}"])
        assert mixed.tolist() == stored[f"mixed_B{clouds}"].tolist()


# Pairs


@PRECISIONS
@pytest.mark.parametrize("cap", [8192, 500])
def test_every_point_with_a_candidate_gives_one_pair(dtype, tolerance, cap):
    stored = golden("matching")
    views = [(stored[f"view{v}_origin_coord"].to(dtype), stored[f"view{v}_offset"]) for v in (1, 2)]
    pairs = match_points(
        *views[0], *views[1],
        radius=float(stored["max_radius"]), neighbours=int(stored["max_k"]),
        max_pairs=cap, generator=generator(),
    )  # fmt: skip
    assert pairs.shape == (min(cap, int(stored["num_view1_with_match"])), 2)
    assert pairs.dtype == torch.int64
    rows = pairs[:, 0].tolist()
    assert rows == sorted(set(rows))
    starts, candidates = stored["csr_ptr"].tolist(), stored["csr_candidates"].tolist()
    assert all(b in candidates[starts[a] : starts[a + 1]] for a, b in pairs.tolist())


def test_partners_and_the_kept_pairs_are_drawn_uniformly():
    query = torch.zeros(40, 3) + torch.arange(40.0)[:, None]
    near = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.3], [0.9, -0.9, 0.0]])
    key = (query[:, None] + near).reshape(-1, 3)
    options = {"radius": 0.5, "neighbours": 8, "max_pairs": 8}
    offsets = torch.tensor([15, 40])
    source = generator(3)
    drawn = torch.cat(
        [
            match_points(query, offsets, key, 4 * offsets, **options, generator=source)
            for _ in range(600)
        ]
    )
    times = torch.bincount(drawn[:, 0], minlength=40)  # 4800 pairs: 120 each, deviation 10
    assert int(times.min()) > 70
    assert int(times.max()) < 170
    partner = torch.bincount(drawn[:, 1] % 4, minlength=4)
    assert partner[3] == 0
    assert int(partner[:3].min()) > 1450  # of 1600, deviation 33
    assert torch.equal(drawn[:, 0], drawn[:, 1] // 4)


def test_a_small_cloud_repeats_no_candidate_and_a_far_one_has_no_pair():
    query, key = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.1], [5.0, 0.0, 0.0]])
    one, options = torch.tensor([1, 2]), {"radius": 0.2, "neighbours": 8, "max_pairs": 9}
    found = match_points(query, one, key, one, **options, generator=generator())
    assert found.tolist() == [[0, 0]]
    far = match_points(query, one, key + 9.0, one, **options, generator=generator())
    assert far.shape == (0, 2)


@pytest.mark.parametrize("changes", [{"radius": 0.0}, {"neighbours": 0}, {"max_pairs": 0}])
def test_a_search_out_of_range_is_refused(changes):
    one = torch.zeros(1, 3), torch.tensor([1])
    options = {"radius": 0.1, "neighbours": 8, "max_pairs": 9, **changes}
    with pytest.raises(ConfigError):
        match_points(*one, *one, **options, generator=generator())


# Schedules


def test_the_one_cycle_schedule_is_that_of_torch():
    stored = golden("onecycle")
    total = int(stored["total_steps"])
    rates = [one_cycle_schedule(i, total, 0.01, 0.1, 1e-6, warmup=0.01) for i in range(total)]
    np.testing.assert_allclose(rates, stored["lr"], rtol=1e-12)
    momenta = [one_cycle_schedule(i, total, 0.95, 0.85, 0.95, warmup=0.01) for i in range(total)]
    np.testing.assert_allclose(momenta, stored["momentum"], rtol=1e-12)
    assert one_cycle_schedule(total + 5, total, 0.01, 0.1, 1e-6, warmup=0.01) == 1e-6


@pytest.mark.parametrize("total", [1, 2, 30, 101])
@pytest.mark.parametrize("warmup", [0.0, 0.02, 0.3, 1.0])
def test_short_runs_have_a_schedule_too(total, warmup):
    values = [one_cycle_schedule(i, total, 0.1, 1.0, 0.0, warmup=warmup) for i in range(total)]
    assert all(0.0 <= value <= 1.0 for value in values)
    assert values[-1] == 0.0


@pytest.mark.parametrize(("total", "warmup"), [(0, 0.1), (10, -0.1), (10, 1.1)])
def test_a_schedule_out_of_range_is_refused(total, warmup):
    with pytest.raises(ConfigError):
        one_cycle_schedule(0, total, 0.1, 1.0, 0.0, warmup=warmup)
