"""`qanet parse`: its options, its places, what it shows and what it tells."""
