"""`qanet build`: engines into a bundle, checked."""
