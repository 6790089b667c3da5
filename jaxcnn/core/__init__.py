"""What a run computes: experiments as values, programs as pure functions, optimizers, schedules."""
