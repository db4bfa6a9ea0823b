"""Measurements beside the peers, in one process and one run. Every figure of the docs names the command here that prints it."""
