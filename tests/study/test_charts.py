"""Charts: there where there is something to show, and readable."""

import pytest
from made import scores_of, summary_of
from matplotlib.image import imread

from fedpeft.config.methods import METHODS
from fedpeft.study.plots import charts, score_bytes
from fedpeft.study.plots.charts import plot_charts
from fedpeft.study.plots.style import METHOD_COLOURS, STYLES, plt


@pytest.fixture
def results(run):
    """A function of runs that gives results with curves for them."""

    def made(*runs, settings=("initial", "local", "federated", "centralized")):
        summary = summary_of(*(scores_of(one, settings=settings) for one in runs))
        curves = {
            "local/north": {"north": [[0, 0.0], [1, 0.4]]},
            "local/south": {"south": [[0, 0.0], [1, 0.5]]},
            "federated": {"north": [[0, 0.0], [1, 0.5]], "south": [[0, 0.0], [1, 0.6]]},
            "centralized": {"pool": [[0, 0.0], [1, 0.6]]},
        }
        history = {model: curve for model, curve in curves.items() if model.partition("/")[0] in settings}
        labels = [item["label"] for item in summary for _ in item["seeds"]]
        return {"split": "test", "summary": summary, "runs": [{"label": name, "history": history} for name in labels]}

    return made


def inked(path):
    """Share of an image that is not white."""
    return (imread(path)[..., :3] < 0.9).any(-1).mean()


def test_all_four_are_plotted_and_one_of_earlier_results_does_not_stay(results, run, tmp_path):
    files = plot_charts(results(run, run.with_(seed=1)), tmp_path)
    assert [file.name for file in files] == ["bytes.png", "curves.png", "seeds.png", "gain.png"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(inked(file) > 0.01 for file in files)
    assert plot_charts(results(run, settings=("initial", "federated")), tmp_path) == files[:3]
    assert sorted(tmp_path.iterdir()) == sorted(files[:3])


def test_without_validation_cases_there_are_no_curves(results, run, tmp_path):
    found = results(run)
    found["runs"][0]["history"] = {"federated": {}, "centralized": {}}
    assert "curves.png" not in [file.name for file in plot_charts(found, tmp_path)]


def test_every_method_can_be_told_from_the_others(results, run):
    """Twelve methods with equal Dice, some of nearly equal size: points and names keep apart."""
    methods_of_the_task = [name for name, entry in METHODS.items() if "segmentation" in entry.tasks]
    methods = [run.with_(method=method) for method in methods_of_the_task]
    figure = score_bytes.score_bytes(results(*methods))
    figure.canvas.draw()
    (axes,) = figure.axes
    names = [text for text in axes.texts if text.get_text() in methods_of_the_task]
    assert {text.get_text() for text in names} == set(methods_of_the_task)
    boxes = [plt.Text.get_window_extent(text) for text in names]
    for index, box in enumerate(boxes):
        assert box.count_overlaps(boxes[index + 1 :]) == 0, names[index].get_text()
        assert axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
    columns = sorted({line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) > 1})
    assert len(columns) == len(methods_of_the_task)
    pixels = [axes.transData.transform((x, 0))[0] for x in columns]
    assert min(b - a for a, b in zip(pixels, pixels[1:], strict=False)) > 8
    plt.close(figure)


def test_axes_of_scores_do_not_zoom_into_noise_and_a_setting_keeps_its_colour(results, run, monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr(charts, "save", lambda figure, path: drawn.update({path.name: figure}))
    found = results(run)
    for item in found["summary"][0]["settings"].values():
        item |= {"average": 0.4, "seeds": [0.4]}
    charts.plot_charts(found, tmp_path)
    for name in ("bytes.png", "seeds.png"):
        low, high = drawn[name].axes[0].get_ylim()
        assert high - low >= 0.0499 and (low + high) / 2 == pytest.approx(0.4)
    assert drawn["seeds.png"].axes[0].get_title() == "seed 0"
    colours = {line.get_linestyle(): line.get_color() for line in drawn["curves.png"].axes[-1].lines}
    assert colours == {style: colour for colour, _, style in STYLES.values()}
    assert not {style[0] for style in STYLES.values()} & set(METHOD_COLOURS)
    for figure in drawn.values():
        plt.close(figure)
