"""Training: images and labels in, checkpoint out. Together with export/, the only room that imports torch."""
