"""Beating hearts as contours: what sets ACDC's five groups apart, in millimetres.

A heart is a stack of contours in polar coordinates about the axis of the left ventricle: radius by
frame and angle of endocardium, epicardium and right cavity. The groups differ as Bernard et al.
define them (2018, doi:10.1109/TMI.2018.2837502): by size, wall, ejection, a scar that does not
move, a septum that is pushed in.

Array names: T frames, A angles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Span = tuple[float, float]

ANGLES_A: Floats = np.linspace(-np.pi, np.pi, 720, endpoint=False, dtype=np.float32)
"""Angles of a contour in rad: 0 is the middle of the free wall, ±π that of the septum."""


@dataclass(frozen=True, slots=True)
class Group:
    """From where to where the hearts of a group range; lengths in mm at end diastole."""

    cavity_mm: Span = (22, 26)
    """Radius of the left cavity."""
    wall_mm: Span = (7.5, 9.0)
    shortening: Span = (0.35, 0.42)
    """Share of the cavity's radius that contraction takes."""
    septum: Span = (0, 0.1)
    """How much thicker the septum is than the free wall, as a share of the wall."""
    flattening: Span = (0, 0.04)
    """How far the septum is pushed in, as a share of the radius."""
    scar_rad: Span = (0, 0)
    """Half width of the thin, immobile segment."""
    rv_depth_mm: Span = (24, 30)
    """Depth of the right cavity, from septum to free wall."""
    rv_shortening: Span = (0.35, 0.45)
    """Share of the right cavity's depth that contraction takes."""


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "DCM": Group(
            cavity_mm=(31, 36),
            wall_mm=(6.0, 7.5),
            shortening=(0.06, 0.13),
            rv_depth_mm=(25, 32),
            rv_shortening=(0.1, 0.25),
        ),
        "HCM": Group(
            cavity_mm=(19, 22), wall_mm=(13, 16), shortening=(0.45, 0.55), septum=(0.15, 0.5)
        ),
        "MINF": Group(
            cavity_mm=(25, 29), wall_mm=(8.0, 9.5), shortening=(0.29, 0.37), scar_rad=(0.85, 1.15)
        ),
        "NOR": Group(),
        "RV": Group(
            cavity_mm=(21, 25),
            shortening=(0.30, 0.38),
            flattening=(0.25, 0.38),
            rv_depth_mm=(42, 50),
            rv_shortening=(0.1, 0.2),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Contours:
    """Radii in mm about the axis of the left ventricle in one slice, each (T, A)."""

    endo_TA: Floats
    epi_TA: Floats
    rv_TA: Floats
    """End of the right cavity; equal to the epicardium where there is none."""


@dataclass(frozen=True, slots=True)
class Heart:
    """One heart, drawn from its group."""

    cavity_A: Floats
    """Radius of the relaxed left cavity at its widest, in mm."""
    wall_A: Floats
    shortening_A: Floats
    rv_A: Floats
    """Depth of the relaxed right cavity at its deepest, in mm."""
    rv_shortening: float
    fat_A: Floats
    """Depth of the fat in which the heart lies, in mm."""

    def contours(self, level: float, beat_T: Floats) -> Contours:
        """The slice at `level`, from 0 at the base to 1 at the apex.

        Args:
            level: height of the slice.
            beat_T: (T,) contraction of each frame, from 0 (end diastole) to 1 (end systole).
        """
        beat = beat_T[:, None]
        taper = np.float32(np.sqrt(1 - (0.88 * level) ** 2))
        relaxed = taper * self.cavity_A
        endo = relaxed * (1 - beat * self.shortening_A)
        # Muscle keeps its volume: where the cavity gives way, the wall thickens.
        muscle = (relaxed + self.wall_A * (0.7 + 0.3 * taper)) ** 2 - relaxed**2
        epi = np.sqrt(endo**2 + muscle * (1 + 0.12 * beat))
        depth = self.rv_A * (1 - level**2) * (1 - beat * self.rv_shortening)
        return Contours(endo, epi, epi + depth)


def draw_heart(rng: np.random.Generator, group: str) -> Heart:
    """A heart as a group of `GROUPS` has it."""
    span = GROUPS[group]
    septal_A = _bump(np.pi, 0.7)
    scar_A = _bump(rng.uniform(-np.pi, np.pi), rng.uniform(*span.scar_rad))
    scar_A = scar_A * np.float32(span.scar_rad[1] > 0)
    round_A = _ripple(rng, 0.035) * (1 - rng.uniform(*span.flattening) * septal_A)
    wall_A = rng.uniform(*span.wall_mm) * (1 + rng.uniform(*span.septum) * septal_A)
    return Heart(
        cavity_A=_floats(rng.uniform(*span.cavity_mm) * round_A),
        wall_A=_floats(wall_A * (1 - 0.6 * scar_A)),
        shortening_A=_floats(rng.uniform(*span.shortening) * (1 - 0.95 * scar_A)),
        rv_A=_floats(rng.uniform(*span.rv_depth_mm) * _crescent(rng)),
        rv_shortening=rng.uniform(*span.rv_shortening),
        fat_A=_floats(1.5 * np.exp(_ripple(rng, 0.6))),
    )


def contraction(frames: int, *, es_frame: int) -> Floats:
    """(T,) from 0 at end diastole, frame 0, to 1 at end systole: ejection, fast filling, rest."""
    phase = np.arange(frames) / es_frame
    ejection = np.sin(np.pi / 2 * phase) ** 2
    filling = np.cos(np.pi / 2 * np.clip((phase - 1) / 1.1, 0, 1)) ** 2
    return _floats(np.where(phase < 1, ejection, filling))


def _floats(values: NDArray[np.floating]) -> Floats:
    return np.asarray(values, np.float32)


def _bump(angle_rad: float, half_width_rad: float) -> Floats:
    """(A,) one inside a sector, zero outside, with soft shoulders."""
    away = np.abs(np.angle(np.exp(1j * (ANGLES_A - angle_rad))))
    return _floats(1 / (1 + np.exp((away - half_width_rad) / 0.12)))


def _ripple(rng: np.random.Generator, size: float) -> Floats:
    """(A,) factor about 1: no ventricle is round."""
    waves = [
        rng.normal(0, size / n) * np.cos(n * ANGLES_A + rng.uniform(0, 2 * np.pi))
        for n in (2, 3, 4)
    ]
    return _floats(1 + np.sum(waves, axis=0))


def _crescent(rng: np.random.Generator) -> Floats:
    """(A,) depth of a right ventricle that wraps the septum: 1 in its middle, 0 past its ends."""
    from_septum = np.pi - np.abs(ANGLES_A)
    lean = _ripple(rng, 0.1)
    reach = np.minimum(from_septum / rng.uniform(1.3, 1.5), 1)
    return _floats(np.maximum(np.cos(np.pi / 2 * reach), 0) ** 0.85 * lean)
