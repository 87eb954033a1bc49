"""Where the people are: an image in, boxes and scores out."""
