"""What a CUDA backend asks of the library that talks to the device."""
