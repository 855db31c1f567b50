"""A local folder that is uploaded as it fills, for a watch: what has stopped changing is sent once, and again if it
changes."""
