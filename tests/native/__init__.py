"""What the native sources promise to other machines and compilers."""
