"""A page of runs, on this machine: `gpubp dashboard`."""
