"""From the parts of a program to CUDA sources and launches."""
