"""An executor that stops in the middle of a round until the test has done what it is there to do."""

import os
import time
from pathlib import Path

from fedpeft.flare.executor import SiteExecutor

FOLDER = "FEDPEFT_TEST_HOLD"


class HoldingExecutor(SiteExecutor):
    """Waits after a round's first training step where the test has left a file, and says so by another.

    The environment names a folder: ``hold-<site>-<round>`` is the test's, ``held-<site>-<round>`` this executor's.
    """

    def _train(self, trainer, dxo, round_):
        train = trainer.train

        def first(received, number):
            trainer.should_stop = self._holding(Path(os.environ[FOLDER]), f"{trainer.site.name}-{round_}")
            trainer.train = train
            return train(received, number)

        trainer.train = first
        return super()._train(trainer, dxo, round_)

    def _holding(self, folder, name):
        """What asks whether to stop; its second call is in the middle, after the first step if all data are read."""
        calls = 0

        def should_stop():
            nonlocal calls
            calls += 1
            hold = folder / f"hold-{name}"
            if calls == 2 and hold.exists():
                (folder / f"held-{name}").touch()
                while hold.exists() and not self._signal.triggered:
                    time.sleep(0.05)
            return self._signal.triggered

        return should_stop
