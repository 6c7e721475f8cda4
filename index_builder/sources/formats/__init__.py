"""How files are laid out: bytes to blocks, and blocks to cells, records, terms or entities."""
