"""Training: jobs as frozen data, one trainer for all of them, a resume that changes nothing.

A `Job` names a task and its data; `Trainer(job).fit()` trains it or goes on with it. May import `stages` and
below. Knows nothing of recipes by name, or of the command line; `accelerate` has its one door here.
"""

from facerestore.training.job import Job
from facerestore.training.trainer import StepReport, Trainer

__all__ = ["Job", "StepReport", "Trainer"]
