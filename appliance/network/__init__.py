"""The network host: a post office for members, parameters and jobs, with an audit log of all three."""
