"""The pieces of the parser by themselves, each beside the floor that this machine allows."""
