"""The runner: the only place where foreign code runs and foreign files are parsed."""
