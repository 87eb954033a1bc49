"""Training pictures made of cut-out people, decoys and photographs without people."""
