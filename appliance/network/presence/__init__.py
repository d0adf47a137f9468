"""When each member was last heard here, and how it says it is: what the operator's ``fedward status`` shows.

Nothing of it is about patients, data or trainings beyond the number of rounds that run.
"""
