"""Tests of lobit.runtime and of the engine under it."""
