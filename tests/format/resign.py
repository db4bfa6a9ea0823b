"""Take a file apart and sign it again, written from the format's description alone: a second reading of docs/architecture.md."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def signed(header: dict[str, Any], body: bytes) -> bytes:
    """A file of these parts, with the digest that belongs to them: SHA-256 of graph text and entries, then of the body.

    A header whose metadata holds no graph cannot be signed and is spelled as it is.
    """
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and "graph" in metadata:
        stated = json.dumps([metadata["graph"], entries], separators=(",", ":")).encode()
        metadata = {**metadata, "digest": hashlib.sha256(b"lobit 1\0" + stated + body).hexdigest()}
        header = {"__metadata__": metadata, **entries}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text + body
