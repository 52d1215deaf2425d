"""Floor 1: one equation, one function, arrays in, arrays out."""
