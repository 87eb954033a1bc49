"""Images and labels in, checkpoint out. With export/, the only room that imports torch."""
