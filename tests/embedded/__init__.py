"""Exported networks on other processors: AArch64, and bare metal on Cortex-M3 and M4, all emulated."""
