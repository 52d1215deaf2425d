"""Scripts that measure and print ratios; they are not tests."""
