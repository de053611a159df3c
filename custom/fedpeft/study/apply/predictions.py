"""Keep the prediction of every evaluated case: ``<folder>/<site>/<case>`` with the ending of the task's files."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from fedpeft.common.folders import unwritable
from fedpeft.config.run import Run
from fedpeft.data.datalist import Site
from fedpeft.tasks.base import Prediction
from fedpeft.tasks.registry import task_of

# Not in a file's name: separators, control characters, and the sign that marks what was replaced.
UNSAFE = re.compile(r"[/\\%\x00-\x1f]")


class PredictionFolder:
    """A folder of predictions. A file of the same name is replaced, each atomically; every other file stays.

    Args:
        path: the folder, which need not exist.
        run: the run that predicts.

    Attributes:
        path: the folder.
        written: number of files written.
        replaced: number of these that were there before.

    Raises:
        ValueError: the run's task has no files of predictions, or ``path`` is a file.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path, self.written, self.replaced = path, 0, 0
        self._ending = task_of(run).kept_as
        if not self._ending:
            raise ValueError(
                f"--save-predictions {path}: a {run.task.name} run has no masks; evaluation.csv has the probabilities "
                "of every case, leave the option out"
            )
        if path.exists() and not path.is_dir():
            raise ValueError(f"--save-predictions {path} is a file, expected a folder; give another name")

    def file(self, site: str, case: str) -> Path:
        """The file of a case, always directly inside the site's folder; characters no file name has become ``%<hex>``.

        Different cases have different files.
        """
        return self.path / _safe(site) / f"{_safe(case)}{self._ending}"

    def refuse_inputs(self, sites: Iterable[Site], split: str) -> None:
        """Refuse, before anything is scored, to write over an image or a label, or where nothing can be written.

        Raises:
            ValueError: a case's file would be one of the data's, or a site's folder cannot be written; the message
                names it.
        """
        sites = list(sites)
        cases = [case for site in sites for name in site.splits for case in site.splits[name]]
        inputs = {path.resolve() for case in cases for path in (case.image, case.label) if path is not None}
        for site in sites:
            if fault := unwritable(self.path / _safe(site.name), "--save-predictions"):
                raise ValueError(fault)
            for case in site.splits[split]:
                if (file := self.file(site.name, case.case)).resolve() in inputs:
                    raise ValueError(f"{file} is a file of the data; give --save-predictions a folder of its own")

    def keeper(self, site: str) -> Callable[[str, Prediction], None]:
        """A function that writes the prediction of a case of the site."""

        def keep(case: str, prediction: Prediction) -> None:
            file = self.file(site, case)
            self.replaced += file.exists()
            prediction.write(file)
            self.written += 1

        return keep


def _safe(name: str) -> str:
    safe = UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", name)
    return safe if safe.strip(".") else safe.replace(".", "%2E") or "%"
