"""Check that a site's labels fit a run."""

from fedpeft.config.run import Run
from fedpeft.data.datalist import Site


def check_labels(run: Run, site: Site) -> None:
    """Check that the site has the task and the labels of the run.

    Raises:
        ValueError: they differ; the message names the site.
    """
    if site.task != run.task.name:
        raise ValueError(f"site {site.name}: its datalist is for {site.task}, the run is {run.task.name}")
    if len(site.labels) != run.outputs:
        besides = " besides background" if run.task.background else ""
        raise ValueError(
            f"site {site.name}: its datalist has the labels {site.labels}, the run expects {run.data.classes} classes"
            f"{besides}; use the data set that the job names, or render the job with --classes"
        )
    if run.data.labels and site.labels != run.label_table:
        raise ValueError(
            f"site {site.name}: its datalist has the labels {site.labels}, the run has {run.label_table}; the same "
            f"number must mean the same class at every site"
        )


def check_labelled(site: Site) -> None:
    """Check that the site's training and validation cases are labelled; at least one case must train.

    Raises:
        ValueError: a case is not labelled, or none trains; the message names the site.
    """
    for case in (*site.cases("training"), *site.splits["validation"]):
        if not case.labelled:
            raise ValueError(f"site {site.name}: case {case.case} has no label; give it one or move it to test")
