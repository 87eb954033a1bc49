"""How well a person detector agrees with a larger one, its teacher, on video."""
