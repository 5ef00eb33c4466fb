"""What a person looks at after a run: a contact sheet, and a page with before/after sliders.

May import `pipeline` and below. Rows come as plain mappings, so nothing here knows how a run keeps its books.
"""

from facerestore.report.html import ReportWriter
from facerestore.report.sheet import Sheet, write_sheet

__all__ = ["ReportWriter", "Sheet", "write_sheet"]
