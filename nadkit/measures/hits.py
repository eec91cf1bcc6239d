"""Where activation lies: its share in a quadrant or on given pixels, and whether that goes with depth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

TOP_SHARE = 0.10
"""The share of pixels that the released measure selects."""


def cell_parts(cells: int, parts: int) -> Tensor:
    """Return the share of every cell that lies in every part, both dividing the same length evenly.

    Examples
    --------
    >>> cell_parts(3, 2)
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000],
            [0.0000, 1.0000]], dtype=torch.float64)

    Parameters
    ----------
    cells
        Cells of a layer's grid along one side, at least 1.
    parts
        2 for the halves of a mosaic, or the pixels along that side.

    Returns
    -------
    Tensor
        (cells, parts) float64; every row adds up to 1.
    """
    # In units of 1 / (cells · parts) every edge is a whole number, so the shares are exact.
    cell = torch.arange(cells, dtype=torch.float64)[:, None] * parts
    part = torch.arange(parts, dtype=torch.float64)[None, :] * cells
    common = torch.minimum(cell + parts, part + cells) - torch.maximum(cell, part)
    return common.clamp(min=0) / parts


def unit_weights(mean: Tensor, variance: Tensor) -> Tensor:
    """Return what the square of each unit is multiplied by: 1 / variance, 0 for a unit that does not vary.

    Examples
    --------
    >>> unit_weights(torch.tensor([1.0, 5.0]), torch.tensor([4.0, 0.0]))
    tensor([0.2500, 0.0000], dtype=torch.float64)

    Parameters
    ----------
    mean, variance
        (n_units,) over pictures and positions, in the whole network.

    Notes
    -----
    A unit that is dead, or constant up to rounding, has no spread to be measured in, and is left out.
    """
    mean, variance = mean.double(), variance.double()
    varies = variance > 1e-12 * mean.square()
    return torch.where(varies, 1 / torch.where(varies, variance, 1.0), 0.0)


def energy(maps: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of squares over units, at every position.

    Examples
    --------
    >>> energy(torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]]), torch.tensor([1.0, 0.5]))
    tensor([[[5.5000, 4.0000]]], dtype=torch.float64)

    Parameters
    ----------
    maps
        (n, n_units, h, w), gated: removed units are 0.
    weights
        (n_units,), at least 0, as `unit_weights` gives them.

    Returns
    -------
    Tensor
        (n, h, w) float64.
    """
    return torch.einsum("nuhw,u->nhw", maps.square(), weights.to(maps)).double()


def quadrant_shares(energies: Tensor) -> Tensor:
    """Return how much of the energy of each mosaic lies in each of its quadrants.

    Examples
    --------
    >>> quadrant_shares(torch.tensor([[[1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 3.0]]]))
    tensor([[0.2500, 0.1250, 0.1250, 0.5000]], dtype=torch.float64)

    Parameters
    ----------
    energies
        (n, h, w), at least 0. A cell that the border between quadrants cuts counts in each by its area.

    Returns
    -------
    Tensor
        (n, 4) float64: top left, top right, bottom left, bottom right; NaN where there is no energy.
    """
    energies = energies.double()
    rows, columns = (cell_parts(size, 2).to(energies) for size in energies.shape[1:])
    return _shares(torch.einsum("nhw,hr,wc->nrc", energies, rows, columns).flatten(1))


def region_shares(energies: Tensor, regions: Tensor) -> Tensor:
    """Return how much of the energy of each picture lies on given pixels.

    Examples
    --------
    >>> region_shares(torch.ones(1, 1, 1), torch.eye(2).bool()[None])
    tensor([0.5000], dtype=torch.float64)

    Parameters
    ----------
    energies
        (n, h, w), at least 0. A cell's energy is taken to be spread evenly over its pixels.
    regions
        (n, H, W) bool: the pixels, on any grid.

    Returns
    -------
    Tensor
        (n,) float64; NaN where there is no energy.
    """
    energies = energies.double()
    pairs = zip(energies.shape[1:], regions.shape[1:], strict=True)
    rows, columns = (cell_parts(cells, pixels).to(energies) for cells, pixels in pairs)
    covered = rows @ regions.to(energies) @ columns.T
    inside, total = (energies * covered).sum((1, 2)), energies.sum((1, 2))
    return torch.where(total > 0, inside / total, torch.nan)


def released_hits(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the share of the brightest tenth of each mosaic that lies in each of its quadrants.

    Units are added up unweighted; the sum is scaled from its lowest to its highest value, times 255, cut to
    uint8, resized bicubically to the input's size, still as uint8; pixels strictly above the n-th largest, n
    the tenth of all rounded down, are selected.

    Examples
    --------
    >>> maps = torch.zeros(1, 1, 8, 8)
    >>> maps[..., :4, 4:] = torch.arange(16.0).view(4, 4)
    >>> released_hits(maps, (8, 8))
    tensor([[0., 1., 0., 0.]], dtype=torch.float64)

    Parameters
    ----------
    maps
        (n, n_units, h, w), gated.
    size
        Height and width of the network's input.

    Returns
    -------
    Tensor
        (n, 4) float64: top left, top right, bottom left, bottom right; NaN where nothing is selected: the sum
        is constant, or ties reach down from the largest value to the n-th.

    Notes
    -----
    **Source** Hu et al., ICCV 2021, as released (cam_2x2.py). Resizing is torch's with its filter for
    antialiasing, the one of its bicubic filters that is Pillow's; few pixels come out one or two of the 255
    levels away from Pillow's.
    """
    total = maps.float().sum(1)
    low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
    flat = high <= low
    levels = ((total - low) / torch.where(flat, 1.0, high - low) * 255).to(torch.uint8)
    # Its uint8 arithmetic, which rounds after each of the two sides as Pillow does, is for the CPU only.
    seen = interpolate(levels[:, None].cpu(), size=size, mode="bicubic", antialias=True)[:, 0]
    rank = max(1, int(TOP_SHARE * size[0] * size[1]))
    edge = seen.flatten(1).sort(1, descending=True).values[:, rank - 1]
    chosen = seen > edge[:, None, None]
    return quadrant_shares(chosen.double())


def depth_correlation(values: Tensor) -> Tensor:
    """Return the rank correlation (Spearman's) of values with their order.

    Examples
    --------
    >>> depth_correlation(torch.tensor([[0.1, 0.3, 0.2, 0.9], [3.0, 2.0, 1.0, 0.0]]))
    tensor([ 0.8000, -1.0000], dtype=torch.float64)

    Parameters
    ----------
    values
        (..., n_layers), in forward order; layers that are NaN are left out, row by row.

    Returns
    -------
    Tensor
        (...) float64 in [-1, 1]; ties share their mean rank. NaN where fewer than three layers have a value,
        or all have the same.
    """
    # Values that differ by rounding alone are equal.
    values = (values.double() * 1e9).round()
    there = ~values.isnan()
    depth = torch.arange(values.shape[-1], dtype=torch.float64).expand(values.shape)
    first, second = _ranks(values, there), _ranks(depth, there)
    size = (first.square().sum(-1) * second.square().sum(-1)).sqrt()
    defined = (there.sum(-1) >= 3) & (size > 0)
    return torch.where(defined, (first * second).sum(-1) / torch.where(defined, size, 1.0), torch.nan)


def _ranks(values: Tensor, there: Tensor) -> Tensor:
    """The mean rank of each value among those that are there, less the mean of these; 0 for the others."""
    both = there[..., :, None] & there[..., None, :]
    lower = (values[..., None, :] < values[..., :, None]) & both
    higher = (values[..., None, :] > values[..., :, None]) & both
    return (lower.sum(-1) - higher.sum(-1)).double() / 2


def _shares(parts: Tensor) -> Tensor:
    total = parts.sum(1, keepdim=True)
    return torch.where(total > 0, parts / total, torch.nan)
