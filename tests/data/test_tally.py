"""Percentiles over volumes that come one by one."""

import numpy as np
import pytest

from fedpeft.data.volumes import tally
from fedpeft.data.volumes.tally import Tally

WANTED = (0.0, 0.5, 5.0, 50.0, 95.0, 99.5, 100.0)


def counted(volumes: list[np.ndarray], **options: int) -> Tally:
    found = Tally(**options)
    for volume in volumes:
        found.add(volume)
    return found


def sampled(kind: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    draw = {
        "int16": lambda: rng.integers(-2000, 2500, (7, 8, 9)).astype(np.int16),
        "uint8": lambda: rng.integers(0, 255, (7, 8, 9)).astype(np.uint8),
        "few": lambda: rng.integers(0, 3, (2, 2, 2)).astype(np.float32),
        "float32": lambda: rng.normal(0, 100, (7, 8, 9)).astype(np.float32),
        "far": lambda: rng.normal(0, 1e6, (7, 8, 9)),
    }[kind]
    return [draw() for _ in range(3)]


@pytest.mark.parametrize("kind", ["int16", "uint8", "few", "float32", "far"])
@pytest.mark.parametrize("chunk", [1 << 24, 100])
def test_exact_up_to_the_limit(kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "CHUNK", chunk)
    volumes = sampled(kind)
    voxels = np.concatenate([volume.ravel() for volume in volumes]).astype(np.float64)
    found = counted(volumes)
    assert found.step == 0.0
    np.testing.assert_allclose(found.percentiles(WANTED), np.percentile(voxels, WANTED), rtol=1e-12, atol=1e-12)
    low, high = np.percentile(voxels, (5, 95))
    clipped = np.clip(voxels, low, high)
    np.testing.assert_allclose(found.moments(low, high), (clipped.mean(), clipped.std()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["int16", "float32", "far"])
def test_beyond_the_limit_a_percentile_is_off_by_less_than_a_step(kind: str) -> None:
    volumes = sampled(kind)
    voxels = np.concatenate([volume.ravel() for volume in volumes]).astype(np.float64)
    found = counted(volumes, limit=64)
    assert found.values.size <= 64 and found.counts.sum() == voxels.size
    assert 0 < found.step <= 4 * np.ptp(voxels) / 64
    gaps = np.percentile(voxels, WANTED) - np.array(found.percentiles(WANTED))
    assert (gaps >= -1e-9).all() and (gaps < found.step).all()


def test_nothing_counted() -> None:
    with pytest.raises(ValueError, match="no voxel was counted"):
        Tally().percentiles((5.0,))
