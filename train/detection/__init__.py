"""Training of the person detector: scenes, frames labelled by a teacher, targets, losses and the run."""
