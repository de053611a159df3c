"""The controller by itself: real store, real round, answers of this test's making; FLARE's engine is a stand-in."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from exchange import Engine, context
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey, ReturnCode
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from fedpeft.config.run import make_run
from fedpeft.flare.aggregator import AdapterAggregator
from fedpeft.flare.answers import Updates, Validations
from fedpeft.flare.controller import AdapterRounds
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import META, refusal, round_of
from fedpeft.flare.persistor import RunFolderPersistor
from fedpeft.models.payload import payload
from fedpeft.training.client.site_file import register
from fedpeft.training.server.continuation import RunStates
from fedpeft.training.server.run_folder import RunFolder

RUN = make_run("pdec_ft", "phantom", "sam_tiny", classes=2, rounds=3, image_size=32)
SITES = ["site-1", "site-2"]


class Server(Engine):
    """The double of FLARE's server: components and sites, and events that reach the store and end the job."""

    def __init__(self, job, local, app, persistor):
        super().__init__(job, local, app)
        self.parts = {"run": job, "persistor": persistor}
        self.events, self.abort = [], Signal()

    def get_component(self, name):
        return self.parts.get(name)

    def get_clients(self):
        return [SimpleNamespace(name=site) for site in SITES]

    def fire_event(self, event_type, fl_ctx):
        self.events.append((event_type, fl_ctx.get_prop(AppConstants.CURRENT_ROUND)))
        if isinstance(self.parts["persistor"], RunFolderPersistor):
            self.parts["persistor"].handle_event(event_type, fl_ctx)
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self.abort.trigger(True)


class Rounds(AdapterRounds):
    """The controller, whose tasks this test answers: ``answer(task name, round, site)``."""

    def __init__(self, answer, min_sites=2):
        super().__init__(min_sites, 60, 10)
        self.answer, self.asked = answer, []

    def broadcast_and_wait(self, task, fl_ctx, min_responses, wait_time_after_min_received, abort_signal):
        round_ = round_of(task.data)
        self.asked.append((task.name, round_, task.timeout, min_responses, wait_time_after_min_received))
        for site in SITES:
            result = self.answer(task.name, round_, site)
            if result is not None:
                task.result_received_cb(SimpleNamespace(client=SimpleNamespace(name=site), result=result), fl_ctx)


def trained(round_, mean=0.5, of=None, **changes):
    tensors = {key: torch.full(shape, 1e-3) for key, shape in payload(RUN, 0).items()}
    report = {"cases": 2, "loss": 0.5, "seconds": 1.0, "dice": {"organ": mean}}
    message = DXO(DataKind.WEIGHT_DIFF, data=tensors | changes, meta={META: report}).to_shareable()
    message.set_header(AppConstants.CURRENT_ROUND, round_ if of is None else of)
    return message


def validated(round_, mean=0.5):
    message = DXO(DataKind.METRICS, data={"cases": 2, "dice": {"organ": mean}}).to_shareable()
    message.set_header(AppConstants.CURRENT_ROUND, round_)
    return message


def well(task, round_, site):
    return trained(round_) if task == "train" else validated(round_)


@pytest.fixture
def play(small_phantom, tmp_path):
    """A function that lets a controller work and returns it, the server and the run folder."""

    def played(answer=well, run=RUN, before=lambda server: None, min_sites=2, job="job"):
        local = register(tmp_path / "kit", run.data.dataset, small_phantom).parent
        server = Server(JobRun(run.to_dict()), local, tmp_path / "app", RunFolderPersistor())
        server.parts["aggregator"] = AdapterAggregator(min_sites)
        before(server)
        fl_ctx, rounds = context(server, "server", "site-1"), Rounds(answer, min_sites)
        fl_ctx.set_prop(ReservedKey.RUN_NUM, job, private=False, sticky=False)
        rounds.initialize(fl_ctx)
        rounds.control_flow(server.abort, fl_ctx)
        rounds.stop_controller(fl_ctx)
        server.fire_event(EventType.END_RUN, fl_ctx)
        return rounds, server, RunFolder(tmp_path / "app" / "run")

    return played


def test_all_rounds_then_a_validation_and_the_run_is_finished(play):
    rounds, server, folder = play()
    assert rounds.asked == [("train", number, 60, 2, 10) for number in range(3)] + [("validate", 3, 60, 2, 10)]
    found = folder.description
    assert (found["status"], found["rounds_done"]) == ("finished", 3)
    assert (found["validated"], found["refused"]) == (SITES, {})
    assert [set(record["sites"]) for record in folder.rounds()] == [set(SITES)] * 3
    assert all(record["silent"] == [] and record["refused"] == {} for record in folder.rounds())
    assert len((folder.path / "metrics.csv").read_text().splitlines()) == 1 + 4 * 2


def test_flares_events_are_fired_with_the_round(play):
    _, server, _ = play(run=RUN.with_(rounds=2))
    names = {value: name for name, value in vars(AppEventType).items()}
    fired = [(names[event], round_) for event, round_ in server.events if event in names]
    one = ["ROUND_STARTED", *["BEFORE_CONTRIBUTION_ACCEPT", "AFTER_CONTRIBUTION_ACCEPT"] * 2]
    one += ["BEFORE_AGGREGATION", "AFTER_AGGREGATION", "BEFORE_LEARNABLE_PERSIST", "AFTER_LEARNABLE_PERSIST"]
    rounds = [(name, round_) for round_ in range(2) for name in [*one, "ROUND_DONE"]]
    assert fired[:2] == [("INITIAL_MODEL_LOADED", 0), ("TRAINING_STARTED", 0)]
    assert fired[2 : 2 + len(rounds)] == rounds


def test_refused_and_silent_sites_are_recorded_and_the_round_goes_on(play):
    key = next(iter(payload(RUN, 0)))

    def answer(task, round_, site):
        faults = [refusal(ReturnCode.BAD_TASK_DATA, "another model"), trained(1, **{key: torch.zeros(1)}), None]
        return well(task, round_, site) if site == "site-1" or task != "train" else faults[round_]

    _, _, folder = play(answer, min_sites=1)
    refused = [record["refused"] for record in folder.rounds()]
    assert refused[0] == {"site-2": "site-2: another model"} and refused[2] == {}
    assert f"site-2: '{key}' has shape (1,)" in refused[1]["site-2"]
    assert [record["silent"] for record in folder.rounds()] == [[], [], ["site-2"]]
    assert folder.description["status"] == "finished"


def test_too_few_results_stop_the_job_and_say_why(play):
    def answer(task, round_, site):
        return refusal(ReturnCode.BAD_TASK_DATA, "no") if (site, round_) == ("site-2", 1) else well(task, round_, site)

    rounds, server, folder = play(answer)
    assert [name for name, *_ in rounds.asked] == ["train", "train"] and server.abort.triggered
    found = folder.description
    assert found["rounds_done"] == 1 and found["status"].startswith("failed: ")
    assert "round 1: 1 accepted results, 2 needed. Refused: site-2: no" in found["status"]


def test_a_site_that_does_not_validate_is_named_and_the_run_is_finished(play):
    def answer(task, round_, site):
        bad = task == "validate" and site == "site-2"
        return refusal(ReturnCode.EXECUTION_EXCEPTION, "no memory") if bad else well(task, round_, site)

    _, _, folder = play(answer)
    found = folder.description
    assert found["status"] == "finished" and found["validated"] == ["site-1"]
    assert found["refused"] == {"site-2": "site-2: no memory"}


@pytest.mark.parametrize("when", [("train", 1), ("validate", 3)])
def test_an_aborted_job_writes_neither_a_round_nor_its_end(play, when):
    kept = []

    def answer(task, round_, site):
        if (task, round_) == when:
            kept[0].abort.trigger(True)
        return well(task, round_, site)

    _, _, folder = play(answer, before=kept.append)
    assert folder.description["status"] == f"stopped after {when[1]} of 3 rounds"
    assert folder.description["rounds_done"] == when[1] == len(folder.rounds())


def test_the_run_ends_early_when_validation_stops_to_improve(play):
    means = [0.5, 0.6, 0.4, 0.5]

    def answer(task, round_, site):
        return trained(round_, means[round_]) if task == "train" else validated(round_, 0.1)

    rounds, _, folder = play(answer, RUN.with_(rounds=30, patience=2))
    assert rounds.asked[-1][:2] == ("validate", 4)
    found = folder.description
    assert (found["status"], found["rounds_done"]) == ("finished", 4)
    assert found["best"] == {"rounds": 1, "validation_dice": pytest.approx(0.6)}


def test_the_job_ends_for_a_site_that_waits_and_the_next_one_goes_on(play, tmp_path):
    states = RunStates(tmp_path / "kit")
    state = states.begin("job")

    def answer(task, round_, site):
        if round_ == 1:
            state.await_site()
        return well(task, round_, site)

    rounds, _, folder = play(answer)
    assert [name for name, *_ in rounds.asked] == ["train", "train"]
    assert folder.description["status"] == state.status("job") == "goes on in another job after 2 of 3 rounds"
    state.append("next")
    state.starts(set(SITES))
    (tmp_path / "app").rename(tmp_path / "first")
    rounds, _, folder = play(job="next")
    assert [(name, number) for name, number, *_ in rounds.asked] == [("train", 2), ("validate", 3)]
    assert folder.description["status"] == state.status("next") == "finished"
    assert folder.description["continued_after"] == [2]
    assert [record["round"] for record in folder.rounds()] == [0, 1, 2]


def test_a_job_without_our_store_is_refused(play):
    rounds, server, _ = play(before=lambda server: server.parts.update(persistor=None))
    assert rounds.asked == [] and server.abort.triggered


def test_flare_hears_how_far_the_job_is(play):
    rounds, server, _ = play()
    fl_ctx, collector = context(server, "server", "site-1"), GroupInfoCollector()
    fl_ctx.set_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR, collector)
    rounds.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, fl_ctx)
    assert list(collector.info.values()) == [{"phase": "_finished_", "current_round": 3, "num_rounds": 3}]


def test_a_late_result_is_dropped(play):
    rounds, server, folder = play()
    before = folder.rounds()
    fl_ctx = context(server, "server", "site-2")
    rounds.process_result_of_unknown_task(SimpleNamespace(name="site-2"), "train", "id", trained(2), fl_ctx)
    assert folder.rounds() == before


@pytest.mark.parametrize("kind", [Updates, Validations])
def test_an_answer_to_another_round_and_a_second_one_are_refused(kind):
    make = {Updates: trained, Validations: validated}[kind]
    answers = kind(JobRun(RUN.to_dict()), 1)
    assert answers.take("a", make(0)) == "a: the result is of round 0, expected round 1"
    assert answers.take("b", make(1)) is None
    assert answers.take("b", make(1)) == "b: a second result for round 1; the first one counts"
    assert set(answers.accepted) == {"b"} and set(answers.refused) == {"a", "b"}


def test_a_site_without_a_case_does_not_count():
    message = trained(0)
    message["DXO"]["meta"][META] = {"cases": 0, "loss": 0.5}
    answers = Updates(JobRun(RUN.to_dict()), 0)
    assert "0 cases, expected at least one" in answers.take("a", message)


def test_a_site_whose_report_lacks_the_number_that_weighs_it_is_refused():
    answers = Updates(JobRun(RUN.with_(site_weighting="slices").to_dict()), 0)
    assert "site-1: its report has no number of slices" in answers.take("site-1", trained(0))
    message = trained(0)
    message["DXO"]["meta"][META]["slices"] = 90
    assert answers.take("site-2", message) is None and answers.accepted["site-2"].report["slices"] == 90


def test_a_site_without_a_weight_ends_the_job_before_the_first_round(play):
    rounds, _, folder = play(run=RUN.with_(site_weights={"site-1": 1.0}))
    assert rounds.asked == []
    status = folder.description["status"]
    assert "site-2: it has no weight" in status and "--site-weights" in status


def test_set_weights_weigh_the_sites(play):
    _, _, folder = play(run=RUN.with_(site_weights={"site-1": 1.0, "site-2": 3.0}))
    assert folder.rounds()[0]["sites"]["site-2"]["weight"] == 0.75


def test_every_reason_is_in_the_end_of_a_round_with_too_few_results():
    answers = Updates(JobRun(RUN.to_dict()), 0)
    answers.take("a", refusal(ReturnCode.BAD_TASK_DATA, "x"))
    with pytest.raises(RuntimeError, match="Refused: a: x. No answer in time: b, c"):
        answers.enough(1, {"a", "b", "c"})


def test_the_aggregator_serves_flares_own_workflows_too(play):
    """FLARE's contract: ``accept`` names the site by the context's peer, ``aggregate`` returns the averaged tensors."""
    rounds, server, _ = play()
    aggregator, fl_ctx = AdapterAggregator(1), context(server, "server", "site-1")
    state = replace(rounds._state, rounds_done=1)
    aggregator.begin(rounds._server, state, server.parts["run"])
    assert aggregator.accept(trained(1), fl_ctx) and not aggregator.accept(trained(1), fl_ctx)
    averaged = from_shareable(aggregator.aggregate(fl_ctx)).data
    assert averaged is aggregator.after.exact and aggregator.after.rounds_done == 2
    assert aggregator.record["silent"] == ["site-2"] and set(aggregator.record["sites"]) == {"site-1"}
    aggregator.reset(fl_ctx)
    with pytest.raises(RuntimeError, match="0 accepted results, 1 needed"):
        aggregator.aggregate(fl_ctx)
