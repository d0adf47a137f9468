"""The network host's own hash-chained log of requests, transfers and jobs."""
