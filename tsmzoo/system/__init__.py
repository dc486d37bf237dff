"""What the project asks of the operating system: files, standard streams, processes, threads."""
