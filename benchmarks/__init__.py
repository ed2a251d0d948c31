"""Side-by-side measurements, run by hand: `make bench`, or `make bench QUICK=1` for a look in two or three minutes."""
