"""Generated images as data sets that other programs load: WebDataset, image folder, IDX, Parquet."""
