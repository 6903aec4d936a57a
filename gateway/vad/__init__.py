"""Voice activity detection: where speech starts and ends, offline and live, from the same parts."""
