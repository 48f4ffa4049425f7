"""What a run leaves for people: results table, verdict, one static HTML page."""

from raysearch.report.budget import budget_text, budget_use
from raysearch.report.html import write_report
from raysearch.report.provenance import training_sentence
from raysearch.report.run_folder import RunFolder
from raysearch.report.surrogate import keep_knowledge
from raysearch.report.table import terminal_table, write_results_table
from raysearch.report.verdict import verdict

__all__ = [
    "RunFolder",
    "budget_text",
    "budget_use",
    "keep_knowledge",
    "terminal_table",
    "training_sentence",
    "verdict",
    "write_report",
    "write_results_table",
]
