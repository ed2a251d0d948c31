"""The encoder of a table, fitted to its training rows: generate writes it, the model carries it, predict applies it.

A kind of column is a file: how its cells become columns of x, what it learns from the training rows, and back.

    a column of an Arrow table ──read──► Cells (numbers, dates or Texts) ──encode──► columns of x ──decode──► text
                                           │
                     those of the training rows ──fit──► Number, Category or Date; all of them together: Columns
"""

from stages.columns.category import Category
from stages.columns.date import Date
from stages.columns.encoder import Columns, Feature, Target, unnamed
from stages.columns.number import Number
from stages.columns.raw import Cells, Notation, Reading, Texts

__all__ = [
    "Category",
    "Cells",
    "Columns",
    "Date",
    "Feature",
    "Notation",
    "Number",
    "Reading",
    "Target",
    "Texts",
    "unnamed",
]
