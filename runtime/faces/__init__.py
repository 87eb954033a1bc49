"""Faces in video: where the head of each person is, framed as the pictures are that face networks learn from."""
