"""What decodes a video file: software everywhere, hardware where it is there and faster."""
