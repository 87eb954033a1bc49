"""Who is who from frame to frame: motion, association, when to look again, and labels that do not flicker."""
