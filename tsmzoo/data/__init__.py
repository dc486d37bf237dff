"""Videos and datasets: decode, select frames, transform, and read the lists of datasets."""
