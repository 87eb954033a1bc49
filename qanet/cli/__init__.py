"""The commands of the package as a whole: doctor, check, inspect."""
