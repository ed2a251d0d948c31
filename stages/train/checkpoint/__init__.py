"""The checkpoint that an interrupted training resumes from, and that a finished one leaves for more epochs later."""

from stages.train.checkpoint.fingerprint import of_machine, of_training, processor_model
from stages.train.checkpoint.store import Checkpoint, discard, finish

__all__ = ["Checkpoint", "discard", "finish", "of_machine", "of_training", "processor_model"]
