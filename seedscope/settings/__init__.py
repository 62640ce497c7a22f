"""The determinism settings that a scope governs, a module for each part of torch."""
