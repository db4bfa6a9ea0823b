"""Tests of lobit.training."""
