"""Nets written by others, in the ways other people write nets: converted, trained a step, exported and verified, or refused by name."""
