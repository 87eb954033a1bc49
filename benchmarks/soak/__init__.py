"""Endurance of the video pipeline: thousands of frames, and whether memory, threads or open files grow meanwhile."""
