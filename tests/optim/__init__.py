"""Tests of lobit.optim."""
