"""What calls programs: compiled functions, training steps, and what they keep between calls."""
