"""A member's host leaves the consortium: what of ours is on it, in which order it goes, and what is kept.

``found`` looks; ``plan`` decides from what was found alone, and touches nothing; ``steps`` are carried out one by one.
Each may be repeated, and what is gone is not in the next plan: a run that was cut short is mended by another.
"""
