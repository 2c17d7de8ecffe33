"""The scheduler: owns the jobs, takes what agents send, and stores it."""
