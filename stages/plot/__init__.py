"""The stage that draws. Its modules find matplotlib loaded with its own settings, whatever the user's are."""

from stages.plot.defaults import load_matplotlib

load_matplotlib()
