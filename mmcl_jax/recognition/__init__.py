"""From poses to actions: windows over each person's poses, models that classify them, and what shows the result."""
