"""Families of ATen's operations, a file each; importing one enters its rules into the table."""
