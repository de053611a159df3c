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
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from fedpeft.config.run import Run
from fedpeft.flare.filters import declared_bytes
from fedpeft.models.payload import counts, download, exchanged, payload
from fedpeft.study.plan.experiments import CENTRALIZED, FEDERATED, INITIAL, LOCAL, Experiment, label
from fedpeft.study.results.bootstrap import over_seeds, paired_contrast
from fedpeft.tasks.registry import task_of
from fedpeft.tasks.scores import CaseScore

EVERYWHERE = "local_everywhere"
Scored = Mapping[Experiment, Sequence[CaseScore]]


def summarise(entries: Sequence[dict[str, Any]], scores: Scored) -> list[dict[str, Any]]:
    """The summaries, in the order of the runs.

    Args:
        entries: "runs" of results.json.
        scores: the scores of every experiment.
    """
    labels = dict.fromkeys(entry["label"] for entry in entries)
    return [
        _summary(
            [entry for entry in entries if entry["label"] == name],
            {experiment: items for experiment, items in scores.items() if label(experiment.run) == name},
        )
        for name in labels
    ]


def _summary(entries: Sequence[dict[str, Any]], scores: Scored) -> dict[str, Any]:
    run = next(iter(scores)).run
    metric = run.task.metric
    measures = (metric, *task_of(run).measure_titles)
    settings = _settings([_by_setting(entry["models"], metric) for entry in entries])
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
    }


def _by_setting(models: Mapping[str, Any], metric: str) -> dict[str, dict[str, float]]:
    """Setting -> site -> score of one run."""
    sites = list(models[INITIAL])
    own = {site: models[f"{LOCAL}/{site}"] for site in sites if f"{LOCAL}/{site}" in models}
    found = {INITIAL: {site: models[INITIAL][site][metric] for site in sites}}
    if len(own) == len(sites):
        found[LOCAL] = {site: own[site][site][metric] for site in sites}
        found[EVERYWHERE] = {site: fmean(item[metric] for item in own[site].values()) for site in sites}
    for setting in (FEDERATED, CENTRALIZED):
        if setting in models:
            found[setting] = {site: models[setting][site][metric] for site in sites}
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
            mine: dict[tuple[str, ...], float] = {
                (item.site, item.case, item.label): item.value for item in items if experiment.site in ("", item.site)
            }
            seeds.setdefault(experiment.run.training.seed, {}).update(mine)
    return over_seeds(list(seeds.values())) if seeds else {}


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
