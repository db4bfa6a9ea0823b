"""Tests of lobit.cli."""
