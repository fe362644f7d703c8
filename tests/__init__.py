"""What tidelog promises, as tests."""
