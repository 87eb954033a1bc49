"""Training data of parsing recipes: people with partial labels, augmentation, scenery, batches."""
