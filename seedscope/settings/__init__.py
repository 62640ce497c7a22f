"""The determinism settings that a scope governs, one module for each part of torch."""
