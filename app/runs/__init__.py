"""What is known of runs on disk, for every process of ours: their names, files and records, and who belongs to one."""
