"""Folders of pictures: which ones, what was done, resumed after any interruption.

May import `pipeline` and below. Knows nothing of reports, recipes by name, or the command line.
"""

from facerestore.batch.runner import ItemResult, Summary, restore_folder

__all__ = ["ItemResult", "Summary", "restore_folder"]
