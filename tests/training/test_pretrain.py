"""The shipped foundation: its generator, its recipe and its file."""

import ast
import json
from pathlib import Path

import pytest
import torch

import fedpeft
from fedpeft.common.files import read_tensors, sha256_of
from fedpeft.config.backbones import BACKBONES
from fedpeft.config.run import Run, make_run
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build, skeleton
from pretrain.descent import write
from pretrain.images import CLASSES, draw
from pretrain.train import main, pretrain, recipe, score

PACKAGE = Path(fedpeft.__file__).parent
IMAGES = PACKAGE.parent / "pretrain" / "images.py"
PHANTOM = PACKAGE / "data" / "phantom" / "sites.py"
GENERATORS = ("pretrain.shapes", "pretrain.figures")
ALLOWED = {"collections", "copy", "dataclasses", "functools", "math", "torch"}
ENTRY = BACKBONES["sam_tiny"]
TASK = make_run("flap_sam", "phantom", backbone="sam_tiny", classes=2)


def modules_of(file: Path) -> set[str]:
    """Names of the modules that a file imports, wherever in it, with ``from a import b`` counted as a.b too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def of_data(module: str) -> bool:
    return module.startswith("fedpeft.data")


def own_modules(file: Path) -> set[str]:
    """Modules of the package that a file imports, directly or through other modules of the package."""
    found: set[str] = set()
    waiting = [file]
    while waiting:
        for name in modules_of(waiting.pop()):
            path = PACKAGE.parent / Path(*name.split("."))
            for source in (path.with_suffix(".py"), path / "__init__.py"):
                if name.startswith(("fedpeft.", "pretrain.")) and name not in found and source.is_file():
                    found.add(name)
                    waiting.append(source)
    return found


@pytest.fixture(scope="module")
def trained() -> tuple[torch.nn.Module, list[float]]:
    """A model after 20 steps."""
    return pretrain(recipe().with_(batch=4), 20, lambda done, loss: None)


class TestImages:
    def test_one_seed_gives_one_batch(self) -> None:
        (image, label), (again, label_again) = draw(4, 7), draw(4, 7)
        assert torch.equal(image, again) and torch.equal(label, label_again)

    def test_seeds_differ(self) -> None:
        assert not torch.equal(draw(4, 7)[0], draw(4, 8)[0])

    @pytest.mark.parametrize(("count", "image_size"), [(1, 96), (3, 64)])
    def test_shapes_and_ranges(self, count: int, image_size: int) -> None:
        image, label = draw(count, 0, image_size)
        assert image.shape == (count, 1, image_size, image_size) and image.dtype == torch.float32
        assert label.shape == (count, image_size, image_size) and label.dtype == torch.int64
        assert image.isfinite().all() and image.min() >= -3 and image.max() <= 6
        assert label.min() >= 0 and label.max() < len(CLASSES)

    def test_every_class_occurs_and_images_vary(self) -> None:
        image, label = draw(32, 1)
        assert label.unique().tolist() == list(range(len(CLASSES)))
        assert image.std(dim=(1, 2, 3)).min() > 0.1

    def test_bright_is_brighter_than_dark(self) -> None:
        image, label = draw(32, 2)
        bright, dark = (image[:, 0][label == CLASSES.index(name)].mean() for name in ("bright", "dark"))
        assert bright > dark + 0.5


class TestSeparation:
    @pytest.mark.parametrize("name", ["images.py", "colour_images.py", "figures.py", "shapes.py"])
    def test_generators_import_nothing_else_of_the_package(self, name: str) -> None:
        names = modules_of(IMAGES.parent / name)
        own = {name for name in names if name.split(".")[0] in ("fedpeft", "pretrain")}
        assert not {name for name in own if not name.startswith(GENERATORS)}
        assert {name.split(".")[0] for name in names - own} <= ALLOWED

    def test_only_self_supervision_reads_data(self) -> None:
        files = {file for file in IMAGES.parent.glob("*.py") if any(map(of_data, modules_of(file)))}
        assert {file.name for file in files} == {"self_supervised.py"}

    @pytest.mark.skipif(not PHANTOM.is_file(), reason="no phantom generator")
    def test_the_phantoms_share_no_code_with_the_images(self) -> None:
        shared = own_modules(PHANTOM)
        assert not {name for name in shared if name.startswith("pretrain")}
        # Since the images import nothing else of the package, there is no module that both could use.
        assert not shared & own_modules(IMAGES)


class TestTraining:
    def test_twenty_steps_reduce_the_loss(self, trained: tuple[torch.nn.Module, list[float]]) -> None:
        _, losses = trained
        assert len(losses) == 20
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])

    def test_the_file_holds_what_a_task_takes_over(
        self, trained: tuple[torch.nn.Module, list[float]], tmp_path: Path
    ) -> None:
        out = tmp_path / "tiny.safetensors"
        write(out, trained[0], recipe(), {"steps": 20})
        facts = json.loads(out.with_suffix(".json").read_text())
        assert facts["steps"] == 20 and facts["sha256"] == sha256_of(out)
        model = build(TASK, out)
        for path, tensor in read_tensors(out).items():
            assert torch.equal(model.state_dict()[path], tensor), path

    def test_score_is_named_by_class(self, trained: tuple[torch.nn.Module, list[float]]) -> None:
        scores = score(trained[0], recipe(), images=16)
        assert list(scores) == ["mean", *CLASSES]
        assert all(0 <= value <= 1 for value in scores.values())

    @pytest.mark.parametrize("arguments", [["--steps", "0", "--out", "a.safetensors"], ["--out", "a.pth"]])
    def test_wrong_arguments_are_refused(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(arguments)
        assert "expected" in capsys.readouterr().err


class TestShippedFile:
    def test_fits_every_task(self) -> None:
        file = shipped(ENTRY)
        model = build(TASK, file)
        wanted = {key for key in skeleton(TASK).state_dict() if not key.startswith(ENTRY.fresh) and ".lora." not in key}
        tensors = read_tensors(file)
        assert tensors.keys() == wanted
        assert all(torch.equal(model.state_dict()[path], tensor) for path, tensor in tensors.items())
        assert all(tensor.isfinite().all() for tensor in tensors.values())

    def test_is_small_and_described(self) -> None:
        file = shipped(ENTRY)
        facts = json.loads(file.with_suffix(".json").read_text())
        assert facts["sha256"] == sha256_of(file)
        assert facts["bytes"] == file.stat().st_size <= 6_000_000
        # Fields that a run got later had their defaults then.
        assert Run.from_dict(facts["recipe"]) == recipe(facts["seed"])
        assert set(facts["score"]) == {"mean", *CLASSES}
