"""Pages for people: figures and pictures in, one HTML file out. Knows no job and no store."""
