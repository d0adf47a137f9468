"""A whole consortium as processes of one ordinary user on one machine."""
