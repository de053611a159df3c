"""Every row's payloads through the codecs that round, both ways: server and sites hold the same, and nothing is lost."""

import pytest
import torch
from exchange import Engine, context, set_round, travel
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants

from fedpeft.algebra.feedback import fed_back
from fedpeft.config.methods import METHODS
from fedpeft.config.run import CODECS, make_run
from fedpeft.flare.aggregator import AdapterAggregator
from fedpeft.flare.filters import declared_bytes
from fedpeft.flare.generator import PayloadGenerator
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import META
from fedpeft.flare.persistor import RunFolderPersistor
from fedpeft.models.checkpoints.start import own
from fedpeft.models.initial import build
from fedpeft.models.payload import download, payload, trainable
from fedpeft.training.client.site_file import register
from fedpeft.training.server.run_folder import RunFolder

ROWS = [(task, name, "int8") for name, row in METHODS.items() for task in row.tasks]
OTHERS = [
    ("segmentation", "flap_sam", "bfloat16"),
    ("classification", "sba", "bfloat16"),
    ("segmentation", "flap_sam", "float32"),
]
ROUNDS = 3
REPORT = {"cases": 3, "loss": 0.5, "seconds": 1.0}


class Exchange:
    """Rounds of one site that trains nothing: it sends differences drawn at random, smaller than the codec's steps."""

    def __init__(self, run, data, folder):
        site_file = register(folder / "workspace", run.data.dataset, data)
        engine = Engine(JobRun(run.to_dict()), site_file.parent, folder / "app")
        self.run, self.folder = run, RunFolder(folder / "app" / "run")
        self.server, self.site = context(engine, "server", "site-1"), context(engine, "site-1", "server")
        self.persistor, self.aggregator, self.generator = RunFolderPersistor(), AdapterAggregator(), PayloadGenerator()
        self.learnable = self.persistor.load_model(self.server)
        # What the site knows, as its trainer does, and the sums of what it meant to send and of what it sent.
        self.known = {key: value.detach().clone() for key, value in trainable(build(run, own(run))).items()}
        self.meant = {key: torch.zeros_like(value) for key, value in self.known.items()}
        self.residual = {}
        self.bytes = []

    def down(self, round_):
        set_round(round_, self.server, self.site)
        self.server.set_prop(AppConstants.GLOBAL_MODEL, self.learnable, private=True, sticky=True)
        task = self.generator.learnable_to_shareable(self.learnable, self.server)
        task.set_header(AppConstants.CURRENT_ROUND, round_)
        received, size = travel(task, self.server, self.site)
        self.known |= from_shareable(received).data
        return size

    def up(self, round_):
        g = torch.Generator().manual_seed(round_)
        difference = {key: 1e-4 * torch.randn(shape, generator=g) for key, shape in payload(self.run, round_).items()}
        self.meant |= {key: self.meant[key] + value for key, value in difference.items()}
        sent, residual = fed_back(
            difference,
            {key: self.residual[key] for key in difference if key in self.residual},
            self.run.federation.codec,
        )
        self.residual = {key: value for key, value in self.residual.items() if key not in difference} | residual
        answer = DXO(DataKind.WEIGHT_DIFF, data=sent, meta={META: REPORT}).to_shareable()
        answer.set_header(AppConstants.CURRENT_ROUND, round_)
        result, size = travel(answer, self.site, self.server)
        assert all(torch.equal(value, sent[key]) for key, value in from_shareable(result).data.items())
        self.aggregator.reset(self.server)
        assert self.aggregator.accept(result, self.server)
        average = self.aggregator.aggregate(self.server)
        self.learnable = self.generator.shareable_to_learnable(average, self.server)
        self.persistor.save_model(self.learnable, self.server)
        return size


@pytest.fixture(scope="module", params=[*ROWS, *OTHERS], ids="-".join)
def played(request, small_phantom, small_pictures, tmp_path_factory):
    task, name, codec = request.param
    small = {"side": 32, "rounds": ROUNDS, "codec": codec}
    if task == "segmentation":
        run, data = make_run(name, "phantom", "sam_tiny", classes=2, **small), small_phantom
    else:
        run, data = make_run(name, "images", "vit_tiny", classes=3, initial="random", blocks=2, **small), small_pictures
    exchange = Exchange(run, data, tmp_path_factory.mktemp(name))
    initial = {key: value.clone() for key, value in exchange.learnable[ModelLearnableKey.WEIGHTS].items()}
    found = []
    for round_ in range(ROUNDS):
        sizes = [exchange.down(round_), exchange.up(round_)]
        found.append((round_, sizes, dict(exchange.known), exchange.folder.tensors()))
    exchange.down(ROUNDS)
    return exchange, initial, found


def test_what_travels_has_the_declared_size(played):
    exchange, _, found = played
    for round_, sizes, _, _ in found:
        expected = (download(exchange.run, round_), payload(exchange.run, round_))
        assert sizes == [declared_bytes(shapes, exchange.run.federation.codec) for shapes in expected]


def test_server_and_site_hold_the_same_tensors_after_every_round(played):
    """What the run folder says after a round is what the site knows once it has received it."""
    exchange, _, found = played
    known = [known for _, _, known, _ in found[1:]] + [exchange.known]
    for (_, _, _, written), received in zip(found, known, strict=True):
        assert written.keys() == received.keys()
        assert [key for key, value in written.items() if not torch.equal(value, received[key])] == []


def test_nothing_of_what_a_site_meant_is_lost(played):
    """But for what it owes: the codec's rounding stays at the server, where it adds up. Products turn; means do not."""
    exchange, initial, _ = played
    weights = exchange.learnable[ModelLearnableKey.WEIGHTS]
    rules = exchange.run.method.rule_of
    means = [key for key in weights if rules(key) == "mean"]
    if not means:
        pytest.skip("every tensor of this row is a factor")
    for key in means:
        residual = exchange.residual.get(key, torch.zeros(()))
        assert torch.allclose(weights[key] - initial[key], exchange.meant[key] - residual, atol=1e-6, rtol=0), key
        largest = exchange.meant[key].abs().max().item()
        assert residual.abs().max().item() <= largest / 60


def test_the_server_can_go_on_from_its_folder(played):
    """Its own tensors are there to the last bit, and only where they differ from what the sites hold."""
    exchange, _, _ = played
    exact = exchange.folder.exact()
    assert all(torch.equal(exact[key], value) for key, value in exchange.learnable[ModelLearnableKey.WEIGHTS].items())
    assert (exchange.folder.path / "exact.safetensors").is_file() == (exchange.run.federation.codec != "float32")


def test_every_codec_is_run_here():
    assert {codec for _, _, codec in [*ROWS, *OTHERS]} == set(CODECS)
