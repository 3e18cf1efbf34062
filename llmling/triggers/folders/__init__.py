"""What watching a folder takes: selection, scan, settling, memory, hints, locks and what happens afterwards."""
