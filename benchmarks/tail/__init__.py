"""The kernel tail alone: logits and boxes in, labels and scores out, every back-end against the same cases in turns."""
