"""Looks at a host from outside and inside, before and after its installation, and says what is wrong and what mends it.

A check is one small function: it gets the ``Host`` and yields ``Finding``s. It changes nothing. What it cannot know it
says, and what hangs is given up: ``checkup`` runs all of them side by side, each with a deadline.
"""
