"""`qanet val`: accuracy on a data set."""
