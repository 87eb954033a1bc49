"""COCO and LVIS files: annotations, people to train on, results with their mask probabilities, rescoring, mask AP."""
