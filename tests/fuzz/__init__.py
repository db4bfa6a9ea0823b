"""Mutated files must be refused with a `FormatError` or run without harm."""
