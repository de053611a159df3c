"""The phantoms' shapes and signal: one volume from a random generator. See ``phantom/sites.py`` for the design."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Coordinates in millimetres along R, A and S, each an array of its own axis only: they broadcast to the volume.
Grid = tuple[np.ndarray, np.ndarray, np.ndarray]
AIR, FAT, BONE, MARROW, BLOOD = 0.03, 0.75, 0.15, 0.55, 0.85
STRIPE = 8.0


@dataclass(frozen=True)
class Anatomy:
    """A population; the last three are ranges.

    Attributes:
        kinds: kinds of lesion, keys of ``KINDS``.
        radius: radius of a lesion, millimetres.
        tilt: angle of an organ's long axis in the slice, degrees.
        spread: distance of an organ from the midline, millimetres.
    """

    kinds: tuple[str, ...]
    radius: tuple[float, float]
    tilt: tuple[float, float]
    spread: tuple[float, float]


@dataclass(frozen=True)
class Scanner:
    """An imaging protocol; signal levels are shares of full scale.

    Attributes:
        tissue: level of the tissue around the organs.
        organ: level of the organs.
        contrast: what a lesion adds to or takes from its organ.
        noise: standard deviation of both channels of the Rician noise.
        bias: amplitude of the logarithm of the bias field.
        blur: weight of each in-plane neighbour.
        gain: stored units at full scale.
        dtype: of the stored voxels.
    """

    tissue: float
    organ: float
    contrast: float
    noise: float
    bias: float
    blur: float
    gain: float
    dtype: str


def make_volume(
    rng: np.random.Generator,
    anatomy: Anatomy,
    scanner: Scanner,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    number: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Make one case.

    Args:
        rng: its state advances.
        anatomy: the patient's population.
        scanner: the protocol.
        shape: voxels along R, A, S.
        spacing: millimetres along R, A, S.
        number: number of the case; consecutive cases begin with different kinds of lesion.

    Returns:
        The image in ``scanner.dtype`` and the label, uint8 with 0 background, 1 organ, 2 lesion.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    grid: Grid = tuple(np.meshgrid(*axes, indexing="ij", sparse=True))
    signal = _body(rng, grid, scanner)
    label = np.zeros(shape, dtype=np.uint8)
    organs = [_organ(rng, anatomy, sign) for sign in (-1, 1)]
    for organ in organs:
        inside = _norm(organ.local(grid), organ.axes) < 1
        signal[inside], label[inside] = scanner.organ, 1
    for index in range(int(rng.integers(1, 4))):
        kind = anatomy.kinds[(number + index) % len(anatomy.kinds)]
        _add_lesion(rng, grid, organs[int(rng.integers(2))], kind, anatomy.radius, scanner.contrast, signal, label)
    return _acquire(rng, grid, signal, scanner), label


@dataclass(frozen=True)
class Organ:
    """A bent ellipsoid.

    Attributes:
        centre: millimetres, R, A, S.
        axes: semi-axes in millimetres: long, short, along the body.
        angle: angle of the long axis in the slice, radians.
        bend: curvature of the long axis: at x mm along it, the organ is displaced by bend x^2 mm; 1 / mm.
    """

    centre: np.ndarray
    axes: np.ndarray
    angle: float
    bend: float

    def local(self, grid: Grid) -> Grid:
        """Coordinates in which the organ is an ellipsoid at the origin, millimetres."""
        x, y, z = (coordinate - origin for coordinate, origin in zip(grid, self.centre, strict=True))
        along = np.cos(self.angle) * x + np.sin(self.angle) * y
        across = np.cos(self.angle) * y - np.sin(self.angle) * x
        return along, across - self.bend * along**2, z


def _organ(rng: np.random.Generator, anatomy: Anatomy, sign: int) -> Organ:
    centre = np.array([sign * rng.uniform(*anatomy.spread), rng.uniform(-8, 10), rng.uniform(-10, 10)])
    axes = np.array([rng.uniform(21, 25), rng.uniform(14, 17), rng.uniform(30, 40)])
    # Left and right mirror each other, as in a body.
    angle = np.deg2rad(rng.uniform(*anatomy.tilt)) * sign
    return Organ(centre, axes, angle, sign * rng.uniform(0.006, 0.014))


def _norm(point: Grid, axes: np.ndarray) -> np.ndarray:
    return np.sqrt(sum((coordinate / axis) ** 2 for coordinate, axis in zip(point, axes, strict=True)))


def _body(rng: np.random.Generator, grid: Grid, scanner: Scanner) -> np.ndarray:
    """Tissue with slow waves, a fat layer around it, a spine at the back and vessels, surrounded by air."""
    x, y, z = grid
    width, depth = rng.uniform(62, 67), rng.uniform(52, 58)
    outline = (np.abs(x / width) ** 2.5 + np.abs(y / depth) ** 2.5) ** 0.4
    inner = outline < rng.uniform(0.88, 0.94)
    tissue = scanner.tissue + 0.03 * _waves(rng, grid)
    signal = np.where(inner, tissue, np.where(outline < 1, FAT, AIR))
    spine = np.hypot(x, y + 0.62 * depth)
    signal = np.where(inner & (spine < 11), np.where(spine < 8, MARROW, BONE), signal)
    for _ in range(4):
        start, drift = rng.uniform(-1, 1, 2) * (12, 25), rng.uniform(-0.15, 0.15, 2)
        vessel = np.hypot(x - start[0] - drift[0] * z, y - start[1] - drift[1] * z)
        signal[inner & (vessel < rng.uniform(2.5, 4.5))] = BLOOD
    return signal


def _waves(rng: np.random.Generator, grid: Grid) -> np.ndarray:
    total = np.zeros(np.broadcast_shapes(*(coordinate.shape for coordinate in grid)))
    for _ in range(6):
        direction = rng.normal(size=3)
        direction *= 2 * np.pi / (rng.uniform(20, 60) * np.linalg.norm(direction))
        phase = rng.uniform(0, 2 * np.pi)
        total += np.cos(sum(k * coordinate for k, coordinate in zip(direction, grid, strict=True)) + phase)
    return total / 2


def _bright(radius: np.ndarray, stripes: np.ndarray) -> np.ndarray:
    return np.ones_like(radius)


def _dark(radius: np.ndarray, stripes: np.ndarray) -> np.ndarray:
    return -np.ones_like(radius)


def _ringed(radius: np.ndarray, stripes: np.ndarray) -> np.ndarray:
    return np.where(radius > 0.65, 1.0, -0.5)


def _striped(radius: np.ndarray, stripes: np.ndarray) -> np.ndarray:
    return np.sign(stripes)


# (normalised radius, wave across the lesion) -> what it adds to its organ, in units of the scanner's contrast.
KINDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "bright": _bright,
    "dark": _dark,
    "ringed": _ringed,
    "striped": _striped,
}


def _add_lesion(
    rng: np.random.Generator,
    grid: Grid,
    organ: Organ,
    kind: str,
    radius: tuple[float, float],
    contrast: float,
    signal: np.ndarray,
    label: np.ndarray,
) -> None:
    """Add a lesion to an organ, in place; parts outside the organ are cut off."""
    direction = rng.normal(size=3)
    centre = organ.axes * direction / np.linalg.norm(direction) * rng.uniform(0.1, 0.55)
    axes = rng.uniform(*radius) * rng.uniform(0.85, 1.2, 3)
    local = tuple(coordinate - origin for coordinate, origin in zip(organ.local(grid), centre, strict=True))
    distance = _norm(local, axes)
    angle = rng.uniform(0, np.pi)
    stripes = np.cos(2 * np.pi * (np.cos(angle) * local[0] + np.sin(angle) * local[1]) / STRIPE)
    inside = (distance < 1) & (label == 1)
    signal[inside] += contrast * np.broadcast_to(KINDS[kind](distance, stripes), signal.shape)[inside]
    label[inside] = 2


def _acquire(rng: np.random.Generator, grid: Grid, signal: np.ndarray, scanner: Scanner) -> np.ndarray:
    """Apply blur in the slice, a bias field and Rician noise, and convert to stored units."""
    for axis in (0, 1):
        neighbours = np.roll(signal, 1, axis) + np.roll(signal, -1, axis)
        signal = (1 - 2 * scanner.blur) * signal + scanner.blur * neighbours
    x, y, z = (coordinate / 70 for coordinate in grid)
    terms = (x, y, z, x * y, x**2 - 0.3, y**2 - 0.3)
    weights = rng.uniform(-1, 1, len(terms))
    field = sum(weight * term for weight, term in zip(weights / np.abs(weights).sum(), terms, strict=True))
    real = signal * np.exp(2 * scanner.bias * field) + scanner.noise * rng.standard_normal(signal.shape)
    stored = np.hypot(real, scanner.noise * rng.standard_normal(signal.shape)) * scanner.gain
    return np.rint(stored).astype(np.int16) if scanner.dtype == "int16" else stored.astype(np.float32)
