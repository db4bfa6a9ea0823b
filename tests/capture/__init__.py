"""Tests of lobit.capture."""
