"""What a size takes, by arithmetic: parameters, FLOPs, latency; and which size fits a budget. Imports no torch."""
