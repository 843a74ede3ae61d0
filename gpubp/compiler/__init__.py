"""From a traced function to a program: trace, differentiate, fuse, lower, schedule, pack."""
