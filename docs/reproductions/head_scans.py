"""The data of the segmentation study: semi-synthetic head scans of three hospitals.

Every patient is the same real head, the template ch2, bent into another one: a random affine map and a smooth elastic
warp, which the labels follow; then a bias field and noise. Each hospital has a contrast, a bias and a noise of its
own, as scanners do. What is to be found are the deep grey nuclei on both sides: caudate, putamen, pallidum and
thalamus (AAL 71 to 78).

These are no patients, and a score on them says nothing of any clinical use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from docs.reproductions.public_data import brain_template

NUCLEI = range(71, 79)


@dataclass(frozen=True)
class Scanner:
    """How a hospital's pictures look.

    Attributes:
        gamma: Of its contrast: below 1 dark tissue is brighter.
        bias: How much brighter one end of the head is than the other, at most.
        noise: Its spread, where the picture goes from 0 to 1.
        blur: In voxels.
    """

    gamma: float
    bias: float
    noise: float
    blur: float


# As unlike as three vendors.
SCANNERS: Mapping[str, Scanner] = {
    "large-hospital": Scanner(gamma=1.0, bias=0.2, noise=0.02, blur=0.0),
    "dark-hospital": Scanner(gamma=1.8, bias=0.4, noise=0.03, blur=0.4),
    "bright-hospital": Scanner(gamma=0.5, bias=0.3, noise=0.04, blur=0.7),
}


@dataclass(frozen=True)
class Head:
    """The template around the nuclei, at the study's resolution: both of shape (side, side, side)."""

    picture: np.ndarray  # from 0 to 1
    nuclei: np.ndarray  # from 0 to 1: the share of each voxel


def template(side: int) -> Head:
    """The real head around its nuclei: a cube of 96 mm, sampled to ``side`` voxels each way."""
    head, labels = brain_template()
    is_nucleus = np.isin(labels, NUCLEI)
    centre = np.round(ndimage.center_of_mass(is_nucleus)).astype(int)
    cube = tuple(slice(c - 48, c + 48) for c in centre)
    factor = side / 96
    picture = ndimage.zoom(ndimage.gaussian_filter(head[cube] / 255.0, 0.4 / factor), factor, order=1)
    nuclei = ndimage.zoom(ndimage.gaussian_filter(is_nucleus[cube].astype(float), 0.3 / factor), factor, order=1)
    return Head(picture.clip(0, 1), nuclei.clip(0, 1))


def ball(side: int) -> Head:
    """A head of two balls, in place of the template where nothing may be fetched."""
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij"))
    distance = np.sqrt(np.square(places).sum(axis=0))
    nuclei = np.maximum(*(1.2 - 2.2 * np.sqrt(np.square(places - shift).sum(axis=0)) for shift in (0.25, -0.25)))
    return Head(((distance < 0.9) * 0.5 + 0.3 * nuclei.clip(0, 1)).clip(0, 1), nuclei.clip(0, 1))


def patient(head: Head, scanner: Scanner, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A patient's scan, bytes from 0 to 255, and the nuclei, 0 or 1; both of shape (side, side, side)."""
    draw = np.random.default_rng(seed)
    side = len(head.picture)
    where = _warp(draw, side)
    picture = ndimage.map_coordinates(head.picture, where, order=1, mode="nearest")
    nuclei = ndimage.map_coordinates(head.nuclei, where, order=1, mode="nearest") > 0.5
    picture = ndimage.gaussian_filter(picture.clip(0, 1) ** scanner.gamma, scanner.blur)
    slope = np.tensordot(draw.normal(size=3), np.stack(np.meshgrid(*[np.linspace(-1, 1, side)] * 3)), axes=1)
    picture = picture * (1 + scanner.bias * slope / np.abs(slope).max())
    picture = picture + draw.normal(scale=scanner.noise, size=picture.shape)
    low, high = np.percentile(picture, (1, 99))
    scan = (255 * ((picture - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    return scan, nuclei.astype(np.uint8)


def _warp(draw: np.random.Generator, side: int) -> np.ndarray:
    """Where in the template each voxel of the patient comes from: turned, scaled, sheared, moved, and bent."""
    places = np.stack(np.meshgrid(*[np.arange(side, dtype=float)] * 3, indexing="ij"))
    middle = (side - 1) / 2
    affine = np.eye(3) + draw.normal(scale=0.08, size=(3, 3))
    moved = np.tensordot(affine, places - middle, axes=1) + middle + draw.normal(scale=side * 0.03, size=(3, 1, 1, 1))
    bend = [ndimage.gaussian_filter(draw.normal(size=(side,) * 3), side / 8, mode="wrap") for _ in range(3)]
    scale = side * 0.02
    return moved + np.stack([scale * each / each.std() for each in bend])


def slices_table(scans: np.ndarray, nuclei: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Patients of shape (n, side, side, side) as rows: a slice in each, then the same slice of the nuclei."""
    count, side = len(scans), scans.shape[1]
    rows = np.stack([scans, nuclei], axis=2).reshape(count * side, 2 * side * side).astype(int)
    patients = np.repeat(np.arange(count), side)
    names = [f"{kind}{number:04}" for kind in ("scan", "nuclei") for number in range(side * side)]
    return ["patient", *names], np.column_stack([patients, rows])
