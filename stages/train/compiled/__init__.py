"""Steps compiled into one C++ loop: many in a call, checked against the steps of loop.py."""

from stages.train.compiled.steps import CompiledSteps

__all__ = ["CompiledSteps"]
