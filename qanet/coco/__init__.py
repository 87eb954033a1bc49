"""COCO and LVIS files: results in and out, mask probabilities, segmentations, people to train on, AP by pycocotools."""
