"""Tests of lobit.quantizers."""
