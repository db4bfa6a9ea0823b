"""The formulas of quantizer families in float64 numpy, and their rows of the table."""
