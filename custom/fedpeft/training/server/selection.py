"""The best validated model of a run, and when to stop waiting for a better one."""

from statistics import fmean

from torch import Tensor

from fedpeft.training.server.run_folder import RunFolder


class Selection:
    """Writes what sites say of a round's model, keeps the best one.

    Args:
        folder: of the run; one that goes on brings its best model so far.
        patience: rounds without a better model after which the run ends; 0: it never does.
    """

    def __init__(self, folder: RunFolder, patience: int) -> None:
        self._folder, self._patience = folder, patience
        found = folder.description
        best = found.get("best", {})
        self._best = best.get(folder.measure, -1.0)
        self._round, self._last = best.get("rounds", 0), max(found["rounds_done"] - 1, 0)

    def validated(self, round_: int, scores: dict[str, dict[str, float]], tensors: dict[str, Tensor]) -> None:
        """Take in a validation.

        Args:
            round_: rounds that the model has gone through.
            scores: site -> class name -> mean score; a site without validation cases has none.
            tensors: the model's trained tensors, kept if the mean over sites is the best so far.
        """
        self._folder.metrics(round_, "validation", scores)
        means = [fmean(values.values()) for values in scores.values() if values]
        self._last = round_
        if means and fmean(means) > self._best:
            self._best, self._round = fmean(means), round_
            self._folder.keep_best(tensors, round_, self._best)

    @property
    def exhausted(self) -> bool:
        """Whether the run may end: nothing better came for ``patience`` validated rounds."""
        return bool(self._patience) and self._best >= 0 and self._last - self._round >= self._patience
