"""The page of a map, for people: one file, or a folder of tiles where there are too many buildings for one."""
