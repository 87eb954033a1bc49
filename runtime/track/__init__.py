"""Tracking: numbers of people over frames, boxes between detections, and labels without flicker."""
