"""One image through a run's model: what is written, and what is said about it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.nn import Module

from fedpeft.common.files import write_json
from fedpeft.data.datalist import Case
from fedpeft.data.images.images import read_pictures
from fedpeft.data.volumes.volume import read_volume, save_mask
from fedpeft.tasks import classification
from fedpeft.tasks import volume_masks as evaluate
from fedpeft.training.server.run_folder import RunFolder


@dataclass(frozen=True)
class Found:
    """What was found: plain values, and a sentence for people."""

    values: dict[str, Any]
    sentence: str


def segment(model: Module, folder: RunFolder, image: Path, out: Path) -> Found:
    """Write the mask of a volume, on the volume's own grid, and count each class's voxels; ``out``'s folder is made."""
    run = folder.run
    # One volume stands alone: it is normalised by its own statistics.
    volume = read_volume(Case(image.name, image), run.label_table, folder.preprocessing)
    mask = evaluate.predict(model, volume, run)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_mask(out, mask, volume)
    inside = mask[volume.content]
    voxels = {name: int((inside == index).sum()) for index, name in run.label_table.items() if index}
    counts = ", ".join(f"{name} {count:,}" for name, count in voxels.items())
    return Found(
        {"mask": str(out), "voxels": voxels, "normalised_by": volume.normalised},
        f"{out}: {counts} voxels of {inside.numel():,}; normalised by the {volume.normalised}'s own statistics",
    )


def classify(model: Module, folder: RunFolder, image: Path, out: Path) -> Found:
    """Write a picture's class and the probabilities of all."""
    run = folder.run
    row = classification.predict(model, read_pictures([Case(image.name, image)], run.model.image_size), run)[0]
    probabilities = dict(zip(run.label_table.values(), row.tolist(), strict=True))
    best = max(probabilities, key=probabilities.get)
    values = {"image": str(image), "class": best, "probabilities": probabilities}
    write_json(out, values)
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    return Found(values, f"{out}: {best}; {', '.join(f'{name} {value:.3f}' for name, value in ranked)}")


@dataclass(frozen=True)
class Inference:
    """A task's inference, and the endings that its output file may have."""

    infer: Callable[[Module, RunFolder, Path, Path], Found]
    endings: tuple[str, ...]


INFERENCES: dict[str, Inference] = {
    "segmentation": Inference(segment, (".nii", ".nii.gz")),
    "classification": Inference(classify, (".json",)),
}
