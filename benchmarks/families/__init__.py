"""The table of families: several networks at every precision, the network alone and whole frames with both tails."""
