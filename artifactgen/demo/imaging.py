"""Images of phantom hearts: what balanced SSFP makes of a chest with a heart in it.

Bright blood, dark muscle, bright fat, grey liver, dark lungs. Everything is painted from back to
front with soft edges, in mm from the middle of the image: x to the patient's left, y to the back.

Array names: T frames, Z slices, Y X pixels, A angles.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from artifactgen.demo.anatomy import ANGLES_A, Contours, Floats, Heart, contraction

RV_CAVITY, MYOCARDIUM, LV_CAVITY = 1, 2, 3
"""ACDC's labels; 0 is everything else."""

BLOOD, FAT, LIVER, MARROW, MUSCLE, LUNG, AIR = 1.0, 0.72, 0.4, 0.36, 0.25, 0.06, 0.02
"""Signal of tissues in balanced SSFP, relative to blood."""

_PAPILLARIES = (0.2, 0.75)
"""Levels between base and apex where the papillary muscles stand free in the cavity."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one patient was scanned."""

    frames: int
    slices: int
    shape_YX: tuple[int, int]
    spacing_mm: float
    thickness_mm: float
    frame_time_s: float
    es_frame: int
    """Index of end systole; end diastole is 0."""
    centre_mm: tuple[float, float]
    """(x, y) of the left ventricle's axis."""
    rotation_rad: float
    blood: float
    """Signal of blood in the units of the stored image."""
    noise: float
    """Standard deviation, relative to blood."""


def draw_protocol(rng: np.random.Generator) -> Protocol:
    """No two patients have the same matrix, spacing and position."""
    frames = int(rng.integers(10, 15))
    return Protocol(
        frames=frames,
        slices=int(rng.integers(6, 10)),
        shape_YX=(int(4 * rng.integers(32, 41)), int(4 * rng.integers(32, 41))),
        spacing_mm=round(rng.uniform(1.5, 1.8), 4),
        thickness_mm=float(rng.choice([8.0, 10.0])),
        frame_time_s=round(rng.uniform(0.7, 1.0) / frames, 4),
        es_frame=round(frames * rng.uniform(0.33, 0.42)),
        centre_mm=(rng.uniform(-2, 22), rng.uniform(-16, 8)),
        rotation_rad=rng.uniform(-0.1, 0.8),
        blood=rng.uniform(110, 200),
        noise=rng.uniform(0.02, 0.04),
    )


@dataclass(frozen=True, slots=True)
class Plane:
    """Where the pixels of a slice lie, from the middle of the image and from the heart's axis."""

    x_YX: Floats
    y_YX: Floats
    radius_YX: Floats
    """Distance from the axis of the left ventricle in mm."""
    angle_YX: NDArray[np.intp]
    """Index into a contour's angles."""

    @classmethod
    def of(cls, protocol: Protocol) -> Plane:
        """The plane that a protocol scans."""
        x, y = (
            (np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(protocol.spacing_mm)
            for n in protocol.shape_YX[::-1]
        )
        x_YX, y_YX = np.meshgrid(x, y)
        right, down = x_YX - protocol.centre_mm[0], y_YX - protocol.centre_mm[1]
        turns = (np.arctan2(down, right) - protocol.rotation_rad) / (2 * np.pi) + 0.5
        index_YX = (turns * len(ANGLES_A)).astype(np.intp) % len(ANGLES_A)
        return cls(x_YX, y_YX, np.hypot(right, down), index_YX)

    def inside(self, contour_TA: Floats) -> Floats:
        """(T, Y, X) depth in mm of every pixel inside a contour, negative outside."""
        return contour_TA.take(self.angle_YX, axis=1) - self.radius_YX

    def ellipse(self, x: float, y: float, width: float, height: float) -> Floats:
        """(Y, X) depth inside an ellipse, in mm as far as it is round."""
        off = np.hypot((self.x_YX - x) / width, (self.y_YX - y) / height)
        return np.asarray((1 - off) * min(width, height), np.float32)


def image_heart(
    rng: np.random.Generator, heart: Heart, protocol: Protocol
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Scan a heart: the cine and its true labels, each (T, Z, Y, X)."""
    beat_T = contraction(protocol.frames, es_frame=protocol.es_frame)
    plane = Plane.of(protocol)
    chest_YX = _chest(rng, plane, protocol.centre_mm[1])
    coil_YX = protocol.blood * _coil(rng, plane)
    cine, labels = [], []
    for level in np.linspace(0.05, 0.92, protocol.slices):
        contours = heart.contours(float(level), beat_T)
        signal_TYX = _place(rng, chest_YX, plane, contours, heart.fat_A)
        if _PAPILLARIES[0] < level < _PAPILLARIES[1]:
            _paint_papillaries(rng, signal_TYX, plane, contours)
        cine.append(_receive(rng, signal_TYX * coil_YX, protocol.noise * protocol.blood))
        labels.append(_label(plane, contours))
    return np.stack(cine, axis=1), np.stack(labels, axis=1)


def _label(plane: Plane, contours: Contours) -> NDArray[np.uint8]:
    """(T, Y, X) of ACDC's labels."""
    labels_TYX = np.uint8(RV_CAVITY) * (plane.inside(contours.rv_TA) > 0)
    labels_TYX[plane.inside(contours.epi_TA) > 0] = MYOCARDIUM
    labels_TYX[plane.inside(contours.endo_TA) > 0] = LV_CAVITY
    return labels_TYX


def _place(
    rng: np.random.Generator, chest_YX: Floats, plane: Plane, contours: Contours, fat_A: Floats
) -> Floats:
    """(T, Y, X) signal of a slice: the heart in its fat, its walls, its blood."""
    shape = chest_YX.shape
    outside_TA = contours.rv_TA + np.clip(contours.rv_TA - contours.epi_TA, 0, 3)
    bed_1A = outside_TA.max(axis=0, keepdims=True) + 2 + fat_A
    image_TYX = np.repeat(chest_YX[None], len(outside_TA), axis=0)
    _paint(image_TYX, plane.inside(bed_1A), FAT * (1 + 0.2 * _texture(rng, shape, 12)), 4)
    muscle_YX = MUSCLE * (1 + 0.08 * _texture(rng, shape, 40))
    blood_YX = BLOOD * (1 + 0.05 * _texture(rng, shape, 16))
    _paint(image_TYX, plane.inside(outside_TA), muscle_YX)
    _paint(image_TYX, plane.inside(contours.rv_TA), 0.92 * blood_YX, 3)
    _paint(image_TYX, plane.inside(contours.epi_TA), muscle_YX)
    _paint(image_TYX, plane.inside(contours.endo_TA), blood_YX)
    return image_TYX


def _paint_papillaries(
    rng: np.random.Generator, image_TYX: Floats, plane: Plane, contours: Contours
) -> None:
    """Two dark muscles in the left cavity; they follow the wall that they stand on."""
    for angle_rad in rng.normal((-1.0, 1.0), 0.1):
        index = int(np.searchsorted(ANGLES_A, angle_rad))
        away = np.abs(ANGLES_A[plane.angle_YX] - angle_rad)
        reach_T11 = 0.76 * contours.endo_TA[:, index, None, None]
        distance = np.sqrt((plane.radius_YX - reach_T11) ** 2 + (plane.radius_YX * away) ** 2)
        _paint(image_TYX, rng.uniform(3.5, 5.5) - distance, 1.3 * MUSCLE, 3)


def _chest(rng: np.random.Generator, plane: Plane, heart_mm: float) -> Floats:
    """(Y, X) signal of everything but the heart."""
    shape = plane.x_YX.shape
    bent = Plane(
        plane.x_YX + 5 * _texture(rng, shape, 5),
        plane.y_YX - heart_mm + 5 * _texture(rng, shape, 5),
        plane.radius_YX,
        plane.angle_YX,
    )
    image_YX = np.full(shape, AIR, np.float32)
    _paint_wall(rng, image_YX, bent)
    _paint_abdomen(rng, image_YX, bent)
    _paint_spine(rng, image_YX, bent)
    return image_YX


def _paint_wall(rng: np.random.Generator, image_YX: Floats, plane: Plane) -> None:
    """Skin, fat, muscle with ribs, and the lungs inside with their vessels."""
    shape = image_YX.shape
    y, height = rng.uniform(20, 28), rng.uniform(106, 118)
    fat_mm, muscle_mm = rng.uniform(6, 20), rng.uniform(9, 14)
    depth = plane.ellipse(rng.uniform(-10, 10), y, 165, height)
    _paint(image_YX, depth, FAT * (1 + 0.12 * _texture(rng, shape, 20)))
    waves_YX = np.sin(22 * np.arctan2(plane.y_YX, plane.x_YX) + np.float32(rng.uniform(0, 6)))
    ribs_YX = np.float32(0.1) * (1 + waves_YX) * (_texture(rng, shape, 10) > 0)
    _paint(image_YX, depth - fat_mm, MUSCLE + ribs_YX)
    _paint(image_YX, depth - fat_mm - muscle_mm, LUNG + _specks(rng, shape, 0.3))
    _paint(image_YX, plane.ellipse(rng.uniform(-25, -5), y - height + fat_mm + 7, 24, 8), MARROW, 3)


def _paint_abdomen(rng: np.random.Generator, image_YX: Floats, plane: Plane) -> None:
    """The liver with its veins below the heart, the stomach at its left."""
    shape = image_YX.shape
    stomach = plane.ellipse(rng.uniform(60, 85), rng.uniform(75, 100), 42, 34)
    _paint(image_YX, stomach, MUSCLE + 0.1)
    content_YX = np.float32(rng.choice([0.12, 0.55])) + 0.1 * _texture(rng, shape, 14)
    _paint(image_YX, stomach - 4, content_YX, 3)
    liver = plane.ellipse(rng.uniform(-65, -40), rng.uniform(76, 86), 95, rng.uniform(48, 60))
    liver_YX = LIVER * (1 + 0.05 * _texture(rng, shape, 30)) + _specks(rng, shape, 0.35)
    _paint(image_YX, liver, liver_YX)


def _paint_spine(rng: np.random.Generator, image_YX: Floats, plane: Plane) -> None:
    """Back muscles, a vertebra with the canal behind it, and the aorta at its left."""
    x, y = rng.uniform(-25, -5), rng.uniform(82, 95)
    shape = image_YX.shape
    _paint(image_YX, plane.ellipse(x, y + 22, 62, 26), MUSCLE + 0.08 * _texture(rng, shape, 24), 4)
    _paint(image_YX, plane.ellipse(x, y, 23, 18), MARROW * (1 + 0.15 * _texture(rng, shape, 30)))
    _paint(image_YX, plane.ellipse(x, y + 24, 9, 6), BLOOD)
    aorta = plane.ellipse(x + rng.uniform(22, 28), y - rng.uniform(12, 18), 11, 11)
    _paint(image_YX, aorta + 2, MUSCLE)
    _paint(image_YX, aorta, 0.95 * BLOOD)


def _coil(rng: np.random.Generator, plane: Plane) -> Floats:
    """(Y, X) sensitivity about 1: the surface coil lies on the chest, the field is not even."""
    fall = np.float32(rng.uniform(0.001, 0.003)) * plane.y_YX
    return np.exp(0.07 * _texture(rng, plane.y_YX.shape, 4) - fall)


def _receive(rng: np.random.Generator, signal_TYX: Floats, noise: float) -> NDArray[np.int16]:
    """The magnitude of a complex signal with noise (Rice's distribution)."""
    real, imaginary = noise * rng.standard_normal((2, *signal_TYX.shape), np.float32)
    magnitude_TYX = np.sqrt((signal_TYX + real) ** 2 + imaginary**2)
    return np.asarray(np.rint(magnitude_TYX), np.int16)


def _texture(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> Floats:
    """(Y, X) random field about 0 of deviation near 1, as fine as 1/`cells` of the image."""
    coarse = rng.standard_normal((cells, cells), np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _specks(rng: np.random.Generator, shape: tuple[int, ...], signal: float) -> Floats:
    """(Y, X) signal of the few vessels that cross the plane."""
    specks_YX: Floats = signal * np.clip(2 * _texture(rng, shape, 28) - 2.6, 0, 1)
    return specks_YX


def _paint(image: Floats, depth_mm: Floats, signal: Floats | float, edge_mm: float = 1.6) -> None:
    """Paint tissue where its depth below its surface is positive, with a soft edge."""
    cover = np.clip(depth_mm / np.float32(edge_mm) + np.float32(0.5), 0, 1)
    image += cover * (signal - image)
