"""What several test packages share."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from fedpeft.data.phantom.sites import write_phantom

sys.path.insert(0, str(Path(__file__).parent))
from small_images import write_small_images  # noqa: E402

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real public images beside the repository; tests that need it are skipped without it."""
    folder = Path(os.environ.get("FEDPEFT_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set FEDPEFT_SHARED to the folder that has data/")
    return folder


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory) -> Path:
    """Three sites of two training, one validation and one test case."""
    root = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(root, sites=3, seed=0)
    for file in root.glob("*/datalist.json"):
        datalist = json.loads(file.read_text())
        for split, count in (("training", 2), ("validation", 1), ("test", 1)):
            datalist[split] = datalist[split][:count]
        file.write_text(json.dumps(datalist))
    return root


@pytest.fixture(scope="session")
def small_images(tmp_path_factory) -> Path:
    """Three sites of 12 training, 3 validation and 6 test images of three classes."""
    return write_small_images(tmp_path_factory.mktemp("data") / "images")
