"""The figure of compared segmentations, of volumes and of images: an example of each site with every model's mask."""

import numpy as np
import pytest
from made import scores_of, summary_of
from matplotlib.image import imread
from small_masks import write_small_masks

from fedpeft.config.run import make_run
from fedpeft.data.datalist import read_sites
from fedpeft.data.prepare.pipeline import prepare
from fedpeft.data.sources.image_masks import MaskTree, find_image_masks
from fedpeft.models.initial import build
from fedpeft.study.plots.image_masks import image_example
from fedpeft.study.plots.masks import plot_masks
from fedpeft.study.plots.volume_masks import volume_example


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    root = tmp_path_factory.mktemp("lesions")
    prepare(find_image_masks(MaskTree(write_small_masks(root / "source", count=5))), root / "data")
    return root / "data"


@pytest.mark.parametrize(("dataset", "find", "channels"), [
    ("image_masks", image_example, 3), ("phantom", volume_example, 1),
])  # fmt: skip
def test_every_site_has_its_example(dataset, find, channels, lesions, small_phantom, tmp_path):
    sites = read_sites({"image_masks": lesions, "phantom": small_phantom}[dataset])
    run = make_run("flap_sam", dataset, "sam_tiny", image_size=32, classes=sites[0].classes)
    model = build(run, None).eval()
    examples = [find(run, site, "test") for site in sites]
    for example in examples:
        assert example.image.ndim == 2 + (channels == 3) and example.image.shape[:2] == example.label.shape
        assert example.label.any()
        mask, score = example.predict(model)
        assert mask.shape == example.label.shape and 0 <= score <= 1
        assert set(np.unique(mask)) <= set(range(run.outputs))
    summary = summary_of(scores_of(run))
    results = {"summary": summary, "runs": [{"label": "one", "history": {"federated": {sites[0].name: [[0, 0.1]]}}}]}
    models = {"federated": dict.fromkeys([site.name for site in sites], model)}
    file = plot_masks(results, sites, models, examples, tmp_path / "compare.png")
    assert (imread(file)[..., :3] < 0.9).any(-1).mean() > 0.05
