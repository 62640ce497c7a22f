"""`cost`: what each determinism setting costs a training step, and which of them repeat."""
