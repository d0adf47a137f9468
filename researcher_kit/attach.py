"""Finding an unattended run again, from any machine with the researcher's folder."""

from __future__ import annotations

from researcher_kit.experiment import Experiment
from researcher_kit.federation import Federation
from researcher_kit.jobs import Job


def attach(job_id: str, federation: Federation | None = None) -> Job:
    """A job that was submitted earlier, here or elsewhere.

    Args:
        job_id: As ``Experiment.submit`` gave it (``job.id``); ``Federation.jobs`` lists yours.
        federation: The connection; if None, one by ``FEDWARD_RESEARCHER_HOME``.

    Raises:
        ConfigurationError: There is no researcher's folder.

    Example:
        >>> attach("2f1c2d6e-5b3a-4c55-9a83-0f5f8c2d9b11").status()  # doctest: +SKIP
    """
    return Job(federation or Federation(), job_id, Experiment.load_breakpoint)
