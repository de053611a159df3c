"""Summarise a comparison for each method and rank: the numbers of the tables and plots.

A summary is {"label", "method", "title", "task", "rank", "seeds", "trainable", "total": parameters, "exchanged":
parameters that a site sends in a round, "bytes_up", "bytes_down": of one site in a round, "settings": {name: {"sites":
{site: score}, "average", "sd", "seeds": [average of each seed], "pooled": {measure: of all sites' cases together}}},
"gain", "ratio"}. Scores are means over seeds; "average" is the mean over sites, "sd" its standard deviation over seeds
(null for one seed); only classification has "pooled". The settings are "initial", "local" (each site's own model at its
own site), "local_everywhere" (each site's own model, the mean over all sites), "federated" and "centralized", as far as
they were compared.

"gain", the FLAP-SAM paper's collaborative gain, is federated minus local: {"sites", "average", "low", "high"}, the last
two being the 95 % interval of the average; "ratio" is federated over centralized: {"sites", "average"}. Either is null
if one of its settings was not compared.

With further metrics, "metrics" has for each, and for the task's own, {"title", "unit", "better", "settings": as above,
with "low", "high" of the average and "intervals": {site: [low, high]}, "federated_minus_local": as "gain", but better
where negative if lower values are better}. "one_mask_empty" has for each setting {"count", "of"}: for how many of the
values one mask is empty, so that a distance is the image's diagonal.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from fedpeft.config.run import Run
from fedpeft.flare.filters import declared_bytes
from fedpeft.models.payload import counts, download, exchanged, payload
from fedpeft.study.plan.experiments import CENTRALIZED, FEDERATED, INITIAL, LOCAL, Experiment, label
from fedpeft.study.results.bootstrap import mean_interval, over_seeds, paired_contrast
from fedpeft.study.results.metrics import by_metric, one_empty
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import CaseScore

EVERYWHERE = "local_everywhere"
Scored = Mapping[Experiment, Sequence[CaseScore]]
# Metric -> its title, unit and direction, see ``metrics.headings``.
Headings = Mapping[str, Mapping[str, Any]]


def summarise(
    entries: Sequence[dict[str, Any]], scores: Scored, metrics: Headings | None = None
) -> list[dict[str, Any]]:
    """The summaries, in the order of the runs.

    Args:
        entries: "runs" of results.json.
        scores: the scores of every experiment.
        metrics: the task's own metric, then the further metrics of the scores.
    """
    labels = dict.fromkeys(entry["label"] for entry in entries)
    return [
        _summary(
            [entry for entry in entries if entry["label"] == name],
            {experiment: items for experiment, items in scores.items() if label(experiment.run) == name},
            metrics or {},
        )
        for name in labels
    ]


def _summary(entries: Sequence[dict[str, Any]], scores: Scored, metrics: Headings) -> dict[str, Any]:
    run = next(iter(scores)).run
    metric = run.task.metric
    measures = (metric, *task_of(run).measure_titles)
    settings = _settings([_by_setting(entry["models"], lambda item: item[metric]) for entry in entries])
    for name in settings:
        settings[name] |= _pooled([entry.get("pooled", {}).get(name) for entry in entries], measures)
    return {
        "label": label(run),
        "method": run.model.method,
        "title": run.method.title,
        "task": run.task.name,
        "rank": run.option("rank"),
        "seeds": [entry["run"]["training"]["seed"] for entry in entries],
        **dict(zip(("trainable", "total"), counts(run), strict=True)),
        "exchanged": exchanged(run),
        **_bytes(run, entries[0]["traffic"]),
        "settings": settings,
        "gain": _gain(settings, scores),
        "ratio": _ratio(settings),
        **(_metrics(entries, scores, metrics) if len(metrics) > 1 else {}),
    }


def _metrics(entries: Sequence[dict[str, Any]], scores: Scored, metrics: Headings) -> dict[str, Any]:
    """Every metric's heading, settings with intervals, and change by federating; the number of penalised values."""
    found = {}
    for name, heading in metrics.items():
        settings = _settings([_by_setting(entry["models"], _mean_of(name)) for entry in entries])
        values = {experiment: by_metric(items, experiment.run)[name] for experiment, items in scores.items()}
        spread = {setting: item | _intervals(values, setting) for setting, item in settings.items()}
        found[name] = {**heading, "settings": spread, "federated_minus_local": _gain(settings, values)}
    penalised = {setting: _penalised(scores, setting) for setting in settings}
    return {"metrics": found, "one_mask_empty": penalised}


def _penalised(scores: Scored, setting: str) -> dict[str, int]:
    trained = LOCAL if setting == EVERYWHERE else setting
    mine = [
        item
        for experiment, items in scores.items()
        if experiment.setting == trained
        for item in items
        if setting == EVERYWHERE or experiment.site in ("", item.site)
    ]
    return {"count": one_empty(mine), "of": len(mine)}


def _mean_of(metric: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda item: float(item["metrics"][metric]["mean"])


def _intervals(scores: Scored, setting: str) -> dict[str, Any]:
    """The 95 % intervals of a setting's average and of its sites."""
    if setting == EVERYWHERE:
        own: dict[str, list[dict[tuple[str, ...], float]]] = {}
        for experiment, items in scores.items():
            if experiment.setting == LOCAL:
                own.setdefault(experiment.site, []).append(_values(items))
        sites = {site: over_seeds(seeds) for site, seeds in own.items()}
        values = over_seeds(list(sites.values()))
    else:
        values = at_home(scores, setting)
        names = dict.fromkeys(key[0] for key in values)
        sites = {site: {key: value for key, value in values.items() if key[0] == site} for site in names}
    average, each = mean_interval(values), {site: mean_interval(mine) for site, mine in sites.items()}
    return {
        "low": average.low,
        "high": average.high,
        "intervals": {site: [item.low, item.high] for site, item in each.items()},
    }


def _by_setting(models: Mapping[str, Any], score: Callable[[Mapping[str, Any]], float]) -> dict[str, dict[str, float]]:
    """Setting -> site -> score of one run."""
    sites = list(models[INITIAL])
    own = {site: models[f"{LOCAL}/{site}"] for site in sites if f"{LOCAL}/{site}" in models}
    found = {INITIAL: {site: score(models[INITIAL][site]) for site in sites}}
    if len(own) == len(sites):
        found[LOCAL] = {site: score(own[site][site]) for site in sites}
        found[EVERYWHERE] = {site: fmean(map(score, own[site].values())) for site in sites}
    for setting in (FEDERATED, CENTRALIZED):
        if setting in models:
            found[setting] = {site: score(models[setting][site]) for site in sites}
    return found


def _settings(seeds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """The settings' means over seeds."""
    found = {}
    for setting, sites in seeds[0].items():
        averages = [fmean(seed[setting].values()) for seed in seeds]
        found[setting] = {
            "sites": {site: fmean(seed[setting][site] for seed in seeds) for site in sites},
            "average": fmean(averages),
            "sd": stdev(averages) if len(averages) > 1 else None,
            "seeds": averages,
        }
    return found


def _pooled(seeds: Sequence[Mapping[str, Any] | None], measures: Sequence[str]) -> dict[str, Any]:
    """Means over seeds of the measures that are one number; one that is undefined for a seed is left out."""
    known = [seed for seed in seeds if seed]
    if len(known) < len(seeds):
        return {}
    values = {name: [seed[name] for seed in known] for name in measures}
    return {"pooled": {name: fmean(found) for name, found in values.items() if None not in found}}


def _bytes(run: Run, traffic: Mapping[str, float]) -> dict[str, int]:
    """Bytes up and down: as measured, or as declared if no federation was compared."""
    up, down = (declared_bytes(declared, run.federation.codec) for declared in (payload(run), download(run)))
    return {"bytes_up": up, "bytes_down": down} | {key: round(value) for key, value in traffic.items()}


def _gain(settings: Mapping[str, Any], scores: Scored) -> dict[str, Any] | None:
    if not {LOCAL, FEDERATED} <= settings.keys():
        return None
    found = paired_contrast(at_home(scores, FEDERATED), at_home(scores, LOCAL))
    federated, local = settings[FEDERATED]["sites"], settings[LOCAL]["sites"]
    return {
        "sites": {site: federated[site] - local[site] for site in local},
        "average": settings[FEDERATED]["average"] - settings[LOCAL]["average"],
        "low": found.low,
        "high": found.high,
    }


def at_home(scores: Scored, setting: str) -> dict[tuple[str, ...], float]:
    """(site, case, class) -> mean score over seeds in a setting; a local model counts at its own site only."""
    seeds: dict[int, dict[tuple[str, ...], float]] = {}
    for experiment, items in scores.items():
        if experiment.setting == setting:
            mine = _values(item for item in items if experiment.site in ("", item.site))
            seeds.setdefault(experiment.run.training.seed, {}).update(mine)
    return over_seeds(list(seeds.values())) if seeds else {}


def _values(items: Iterable[CaseScore]) -> dict[tuple[str, ...], float]:
    return {(item.site, item.case, item.label): item.value for item in items}


def _ratio(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    if not {FEDERATED, CENTRALIZED} <= settings.keys():
        return None
    federated, centralized = settings[FEDERATED], settings[CENTRALIZED]
    return {
        "sites": {site: _over(federated["sites"][site], value) for site, value in centralized["sites"].items()},
        "average": _over(federated["average"], centralized["average"]),
    }


def _over(value: float, other: float) -> float | None:
    return value / other if other else None
