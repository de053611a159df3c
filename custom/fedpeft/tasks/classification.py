"""Classification of images; a case scores 1 if its class is the most probable one, else 0."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.losses import FocalLoss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedpeft.common.files import write_json
from fedpeft.config.datasets import Preprocessing
from fedpeft.config.run import Run
from fedpeft.config.tasks import TASKS
from fedpeft.data.cache import Cache
from fedpeft.data.datalist import Case, Site
from fedpeft.data.images.images import ImageData, normalised, read_images
from fedpeft.tasks.base import IMAGES, Prediction, Task, Written
from fedpeft.tasks.measures import TITLES, measures
from fedpeft.tasks.scores import CaseScore, Scoring
from fedpeft.tasks.types import Loss, Stopped

# Images that one forward pass without gradients takes.
CHUNK = 64


@dataclass(frozen=True)
class ImageCases:
    """A split's images in memory.

    Attributes:
        cases: in the datalist's order.
        pixels: (N, 3, size, size) uint8.
    """

    cases: tuple[Case, ...]
    pixels: Tensor


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """The probabilities of one image's classes.

    Attributes:
        image: the file.
        probabilities: name of the class -> probability, in the order of the model's outputs.
    """

    image: Path
    probabilities: dict[str, float]

    @property
    def value(self) -> dict[str, float]:
        """The name of each class -> its probability; they sum to 1."""
        return self.probabilities

    def write(self, out: Path) -> Written:
        """Write the most probable class and the probabilities of all as JSON."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        best = ranked[0][0]
        values = {"image": str(self.image), "class": best, "probabilities": self.probabilities}
        write_json(out, values)
        return Written(values, f"{out}: {best}; {', '.join(f'{name} {value:.3f}' for name, value in ranked)}")


class ClassificationTask(Task[ImageData, ImageCases]):
    """Predicts one class for each image."""

    entry = TASKS["classification"]
    does = "classifies"
    takes = IMAGES
    endings = (".json",)
    figure = "confusions"
    measure_titles = TITLES

    def training_data(self, run: Run, site: Site, before_read: Callable[[], None], cache: Cache) -> ImageData:
        """The images of a site's training cases; see `Task.training_data`."""
        return ImageData(
            site.splits["training"],
            run.data.classes,
            run.model.image_size,
            run.backbone.colours,
            batch=run.training.batch,
            before_read=before_read,
            cache=cache,
        )

    def loss(self, run: Run, data: ImageData) -> Loss:
        """Cross-entropy or focal loss, as the run says.

        "balanced": cross-entropy in which every class that occurs at the site weighs the same in an epoch, n / (k n_c)
        for n cases of k classes. The counts stay at the site. "plain": unweighted. "focal": Lin et al. 2017, gamma 2.

        Returns:
            A function of logits (B, classes) and classes (B,) int64.
        """
        return LOSSES[run.training.loss](data.counts)

    def read(
        self,
        run: Run,
        site: Site,
        split: str,
        preprocessing: Preprocessing,
        before_read: Callable[[], None] = lambda: None,
        cache: Cache | None = None,
    ) -> ImageCases:
        """A split's images, fitted to the network's input; ``preprocessing`` is not used. See `Task.read`."""
        cases = site.splits[split]
        if not cases:
            return ImageCases((), torch.empty(0, 3, run.model.image_size, run.model.image_size, dtype=torch.uint8))
        return ImageCases(tuple(cases), read_images(cases, run.model.image_size, before_read, cache))

    def unlabelled(self, cases: ImageCases) -> Iterator[str]:
        """The names of the cases without a class."""
        return (case.case for case in cases.cases if case.target is None)

    def score_labelled(
        self,
        model: nn.Module,
        cases: ImageCases,
        run: Run,
        labels: Mapping[int, str],
        where: tuple[str, str],
        should_stop: Callable[[], bool],
        scoring: Scoring,
    ) -> list[CaseScore]:
        """Score 1 if a case's class is the most probable one, else 0, with all probabilities. See `Task.score`."""
        probabilities = class_probabilities(model, cases.pixels, run, should_stop)
        targets = [case.target for case in cases.cases if case.target is not None]
        return [
            CaseScore(*where, case.case, labels[target], float(values.argmax() == target), tuple(values.tolist()))
            for case, target, values in zip(cases.cases, targets, probabilities, strict=True)
        ]

    def predict(self, model: nn.Module, image: Path, run: Run, preprocessing: Preprocessing) -> ClassPrediction:
        """The class of a JPEG or PNG file; see `Task.predict`."""
        values = class_probabilities(model, read_images([Case(image.name, image)], run.model.image_size), run)[0]
        return ClassPrediction(image, dict(zip(run.label_table.values(), values.tolist(), strict=True)))

    def measures(self, scores: Sequence[CaseScore], labels: Sequence[str]) -> dict[str, Any]:
        """Accuracy, macro F1, AUROC and the confusion matrix; see ``fedpeft.tasks.measures``."""
        return measures(scores, labels)


def _balanced(counts: Tensor) -> Loss:
    weights = class_weights(counts)

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        # torch's own weighted mean divides by the weights of the batch, so the weight of a one-class batch cancels out.
        values = cross_entropy(logits, classes, reduction="none")
        return (weights.to(logits.device)[classes] * values).mean()

    return loss


def _focal(counts: Tensor) -> Loss:
    focal = FocalLoss(use_softmax=True, to_onehot_y=True, include_background=True, gamma=2.0)
    return lambda logits, classes: focal(logits, classes[:, None])


# Name -> function that makes the loss from the number of cases of each class at the site, (classes,) int64.
LOSSES: dict[str, Callable[[Tensor], Loss]] = {
    "balanced": _balanced,
    "plain": lambda counts: cross_entropy,
    "focal": _focal,
}


def class_weights(counts: Tensor) -> Tensor:
    """Weights n / (k n_c), (classes,) float32; a class that does not occur has weight 1, which no case uses."""
    occurs = counts > 0
    return torch.where(occurs, counts.sum() / (occurs.sum() * counts.clamp(min=1)), 1.0).float()


@torch.inference_mode()
def class_probabilities(
    model: nn.Module, pixels: Tensor, run: Run, should_stop: Callable[[], bool] = lambda: False
) -> Tensor:
    """Probabilities of all classes.

    Args:
        model: in evaluation mode.
        pixels: (N, 3, size, size) uint8.
        run: the colour statistics of its backbone normalise the images.
        should_stop: asked before every forward pass.

    Returns:
        (N, classes) float32 on the CPU.

    Raises:
        Stopped: ``should_stop`` returned True.
    """
    device = next(model.parameters()).device
    found = [torch.empty(0, run.outputs)]
    for chunk in pixels.split(CHUNK) if len(pixels) else ():
        if should_stop():
            raise Stopped("stopped while predicting")
        found.append(model(normalised(chunk, run.backbone.colours).to(device)).float().softmax(dim=1).cpu())
    return torch.cat(found)
