"""Notices: what staff are told by e-mail and webhook, so that nobody need look at the GUI every day."""
