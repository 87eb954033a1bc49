"""Energy a person and a frame, from what sensors the machine has, idle subtracted; "unavailable" with the reason."""
