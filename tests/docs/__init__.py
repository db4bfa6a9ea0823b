"""The documents: generated pages and pictures are what their commands make, the translation keeps step, the format page suffices for a reader."""
