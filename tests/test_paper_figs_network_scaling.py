"""The verdict on the dimension follows the rounds that networks need, network by network."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from empirical import scaling
from paper_figs import fig_network_scaling

SIZES = (8, 16, 32, 64)
CHOSEN = scaling.ScalingSettings(
    image_sizes=(8, 16, 64),
    scaled_sizes=(),
    widths=(),
    blocks=(),
    gains=(0.5,),
    networks=(),
    bypasses=(),
    mses=(),
    noises=(),
)


def made_up(needed, *, n_pairs=4, max_rounds=4):
    """Pairs that need so many rounds, shape (size, network); all ends converge but those of the gain 0.5."""
    kinds = [("image_size", "8"), ("image_size", "16"), (scaling.BASE, ""), ("image_size", "64"), ("gain", "0.5")]
    needed = np.concatenate([needed, np.full((1, np.shape(needed)[1]), max_rounds + 1)])
    shape = (len(kinds), needed.shape[1], 1, n_pairs)
    rounds = np.arange(max_rounds + 1)
    connected = np.broadcast_to(rounds >= needed[:, :, None, None, None], (*shape, rounds.size)).copy()
    converged = np.ones((*shape, 2), dtype=bool)
    converged[-1] = False
    dims = ("kind", "network", "class", "pair")
    return xr.Dataset(
        {
            "barrier": ((*dims, "round"), np.where(connected, 0.001, 0.1)),
            "is_connected": ((*dims, "round"), connected),
            "converged": ((*dims, "end"), converged),
            "low_ends": (dims, converged.all(axis=-1)),
        },
        coords={
            "changed": ("kind", [changed for changed, _ in kinds]),
            "value": ("kind", [value for _, value in kinds]),
        },
        attrs={"settings": CHOSEN.model_dump_json()},
    )


@pytest.mark.parametrize(
    "needed, outcome",
    [
        ([[4, 3, 4, 4, 3], [3, 3, 3, 3, 3], [2, 2, 3, 2, 2], [1, 2, 2, 1, 2]], "holds with a correction"),
        ([[4, 2, 1], [3, 2, 2], [2, 2, 3], [1, 2, 4]], "open"),  # one network falls, one rises
        ([[4], [3], [2], [1]], "open"),  # one network tells nothing
        ([[1, 2, 1], [2, 2, 2], [3, 3, 3], [3, 4, 4]], "fails"),
    ],
)
def test_networks_are_the_witnesses(needed, outcome):
    (verdict,) = fig_network_scaling.judge(made_up(needed))
    assert verdict.outcome == outcome
    assert f"over {len(needed[0])} networks" in verdict.explanation


def test_the_spread_held_has_a_verdict_of_its_own():
    dataset = made_up([[4, 3, 4, 4, 3], [3, 3, 3, 3, 3], [2, 2, 3, 2, 2], [1, 2, 2, 1, 2]])
    changed = [scaling.SCALED if name == "image_size" else name for name in dataset["changed"].values]
    both = xr.concat([dataset, dataset.assign_coords(changed=("kind", changed)).isel(kind=[0, 1, 3])], "kind")
    plain, held = fig_network_scaling.judge(both)
    assert plain.outcome == "holds with a correction"
    assert held.outcome == "holds"
    assert held.claim.endswith("logits' spread held")


def test_two_claims_share_their_five_percent():
    needed = np.array([[4, 4, 3, 3], [3, 3, 3, 3], [2, 2, 2, 3], [2, 1, 2, 2]])
    alone = made_up(needed)
    slopes = fig_network_scaling._slopes(
        np.log(3 * np.array(SIZES) ** 2), fig_network_scaling._kinds(alone, "image_size")
    )
    p = stats.ttest_1samp(slopes, 0).pvalue
    assert 0.025 < p < 0.05
    assert fig_network_scaling.judge(alone)[0].outcome == "holds with a correction"
    changed = [scaling.SCALED if name == "image_size" else name for name in alone["changed"].values]
    both = xr.concat([alone, alone.assign_coords(changed=("kind", changed)).isel(kind=[0, 1, 3])], "kind")
    assert [verdict.outcome for verdict in fig_network_scaling.judge(both)] == ["open", "open"]


def test_a_pair_with_an_end_above_delta_is_in_no_number_but_the_share_of_such_ends():
    needed = [[4, 3, 4, 4, 3], [3, 3, 3, 3, 3], [2, 2, 3, 2, 2], [1, 2, 2, 1, 2]]
    dataset = made_up(needed)
    without = fig_network_scaling.judge(dataset.isel(pair=slice(3)))
    dataset["is_connected"][..., 3, :] = False
    assert fig_network_scaling.judge(dataset)[0].measured != without[0].measured
    dataset["low_ends"][..., 3] = False
    assert fig_network_scaling.judge(dataset) == without
    figure = fig_network_scaling.draw(dataset)
    last = figure.axes[0].containers[-1].lines[0].get_ydata()
    assert (last == 1).all()
    np.testing.assert_allclose(figure.axes[2].containers[0].lines[0].get_ydata(), 0.75)


def test_the_slope_is_that_of_the_line_through_each_network():
    kinds = fig_network_scaling._kinds(made_up([[4, 1], [3, 1], [2, 1], [1, 1]]), "image_size")
    assert [value for value, _ in kinds] == list(SIZES)
    x = np.log(3 * np.array(SIZES) ** 2)
    expected = np.polyfit(x, [4, 3, 2, 1], 1)[0]
    np.testing.assert_allclose(fig_network_scaling._slopes(x, kinds), [expected, 0], atol=1e-12)


def test_a_gain_at_which_no_end_converges_is_told():
    caption = fig_network_scaling.caption(made_up([[1, 1]] * 4))
    assert "(at 0.5 no end reached the threshold)" in caption
    assert "The base alone" in caption
