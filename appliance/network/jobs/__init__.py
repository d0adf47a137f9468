"""The queue from which a federator takes experiments that researchers submitted."""
