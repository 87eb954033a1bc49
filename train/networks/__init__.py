"""Networks as plain torch modules: backbone, panoptic FPN, parsing head, IoU head."""
